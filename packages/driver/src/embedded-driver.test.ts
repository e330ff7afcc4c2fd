import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { BuilderRegistry, embeddedPaths } from "./index.ts";

const root = mkdtempSync(join(tmpdir(), "kiln-embedded-test-"));
after(() => rmSync(root, { recursive: true, force: true }));

/** A daemon that answers `Info` and writes its process id beside its socket. */
const FAKE_DAEMON = `
import { writeFileSync } from "node:fs";
import { Control } from ${JSON.stringify(import.meta.resolve("@kiln/api/control"))};
import { listen, Router } from ${JSON.stringify(import.meta.resolve("@kiln/grpc/server"))};
const args = process.argv.slice(2);
const socket = args[args.indexOf("--addr") + 1].replace("unix://", "");
const router = new Router();
router.add(Control, { info: () => ({ buildkitVersion: { version: "fake" } }) });
await listen(router, { kind: "unix", path: socket });
writeFileSync(socket + ".pid", String(process.pid) + "\\n" + args.join(" "));
`;

test("the embedded daemon is started once, and used again", async () => {
  const main = join(root, "fake.ts");
  writeFileSync(main, FAKE_DAEMON);
  const env = { KILN_HOME: join(root, "home"), HOME: root, PATH: process.env.PATH };
  const paths = embeddedPaths(env);
  const boot = async (): Promise<string | undefined> => {
    const [node] = new BuilderRegistry(env, [process.execPath, main]).find().nodes;
    const names: string[] = [];
    const client = await node!.driver.boot({
      onStatus: ({ vertexes }) => names.push(...vertexes.map(({ name }) => name)),
    });
    assert.equal((await client.info())?.version, "fake");
    await node!.close();
    return names[0];
  };
  try {
    assert.deepEqual(
      (await Promise.all([boot(), boot()])).filter(
        (name) => name !== undefined && !name.includes("starting kilnd"),
      ),
      [],
    );
    const pid = readFileSync(`${paths.socket}.pid`, "utf8");
    assert.match(pid, /--root .*home\/daemon --addr unix:.* --idle-timeout 10m$/);
    assert.equal(await boot(), undefined, "a running daemon isn't started");
    assert.equal(readFileSync(`${paths.socket}.pid`, "utf8"), pid);
  } finally {
    if (existsSync(`${paths.socket}.pid`)) {
      process.kill(Number.parseInt(readFileSync(`${paths.socket}.pid`, "utf8"), 10));
    }
  }
});

test("a daemon that doesn't start tells why", async () => {
  const env = { KILN_HOME: join(root, "broken"), HOME: root, PATH: process.env.PATH };
  const command = [process.execPath, "-e", "console.error('no overlay here'); process.exit(3)", "--"];
  const [node] = new BuilderRegistry(env, command).find().nodes;
  await assert.rejects(node!.driver.boot(), /failed to start kilnd: it exited with code 3\nno overlay here/);
  await node!.close();
  const [missing] = new BuilderRegistry({ ...env, KILN_HOME: join(root, "none") }, []).find().nodes;
  await assert.rejects(missing!.driver.boot(), /kilnd isn't installed beside kiln/);
});
