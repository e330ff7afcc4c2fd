import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { containerHosts, containerResolvConf } from "./dns.ts";

const NONE = { nameservers: [], options: [], searchDomains: [] };

describe("containerResolvConf", () => {
  it("drops servers on the loopback device, and uses public ones when none is left", () => {
    const machine =
      "# comment\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nsearch a.example b.example\noptions edns0\n";
    assert.equal(
      containerResolvConf(machine, undefined, false),
      "nameserver 10.0.0.1\nsearch a.example b.example\noptions edns0\n",
    );
    assert.equal(
      containerResolvConf("nameserver ::1\n", NONE, false),
      "nameserver 8.8.8.8\nnameserver 8.8.4.4\nnameserver 2001:4860:4860::8888\nnameserver 2001:4860:4860::8844\n",
    );
  });

  it("leaves the machine's as it is on the machine's network", () => {
    assert.equal(containerResolvConf("nameserver 127.0.0.53\n", NONE, true), "nameserver 127.0.0.53\n");
    assert.match(containerResolvConf("", NONE, true), /^nameserver 8\.8\.8\.8\n/);
  });

  it("takes the daemon's settings over the machine's", () => {
    const dns = { nameservers: ["127.0.0.1"], options: ["ndots:2"], searchDomains: [".", "corp"] };
    assert.equal(
      containerResolvConf("nameserver 10.0.0.1\noptions x\nsortlist y\n", dns, false),
      "nameserver 127.0.0.1\nsearch corp\noptions ndots:2\nsortlist y\n",
    );
    const bad = { ...NONE, nameservers: ["not an address"] };
    assert.throws(() => containerResolvConf("", bad, false), { code: "invalid_argument" });
  });

  it("keeps the last search list and all options", () => {
    const text = "domain one\nsearch two three\noptions a\noptions b\nnameserver bad\nnameserver 1.1.1.1\n";
    assert.equal(
      containerResolvConf(text, undefined, false),
      "nameserver 1.1.1.1\nsearch two three\noptions a b\n",
    );
  });
});

describe("containerHosts", () => {
  it("names the container and adds what is asked for", () => {
    assert.equal(
      containerHosts("", [{ host: "db", ip: "10.0.0.9" }]),
      "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.9\tdb\n",
    );
  });
});
