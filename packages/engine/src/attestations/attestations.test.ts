import assert from "node:assert/strict";
import {
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";
import { isBuildError } from "@kiln/base";
import type { ImmutableRef, Remote } from "@kiln/store";
import type { Attestation } from "../solve/build-results.ts";
import { fakeContext } from "../sources/testing/fake-engine.ts";
import { parseAttests } from "./attest-attrs.ts";
import { rewriteJson } from "./json-text.ts";
import { imagePurl } from "./purl.ts";
import { supplementSbom } from "./sbom.ts";
import { makeStatements, statementText } from "./statements.ts";
import { attestationContent, unbundle } from "./unbundle.ts";

const ctx = fakeContext().ctx;

/** A tree on disk that says it is a ref. */
class DirRef implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "kiln-attest-"));
  readonly layerPaths: readonly string[];

  constructor(files: Readonly<Record<string, string>> = {}, layers: readonly DirRef[] = []) {
    for (const [name, text] of Object.entries(files)) this.write(name, text);
    this.layerPaths = layers.map((layer) => layer.path);
  }

  write(name: string, text: string, mtime = 1): void {
    const file = join(this.path, name);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
    utimesSync(file, mtime, mtime);
  }

  get ref(): ImmutableRef {
    return refOf(this.path, this.layerPaths);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

function refOf(path: string, layers: readonly string[] = []): ImmutableRef {
  return {
    mount: async () => ({
      mounts: [{ type: "bind", source: path, options: ["rbind"] }],
      [Symbol.asyncDispose]: async () => undefined,
    }),
    layers: () => layers.map((layer) => refOf(layer)),
    [Symbol.asyncDispose]: async () => undefined,
  } as unknown as ImmutableRef;
}

function attestation(fields: Partial<Attestation<ImmutableRef>>): Attestation<ImmutableRef> {
  return {
    kind: "in-toto",
    metadata: new Map(),
    ref: undefined,
    path: "a.json",
    predicateType: "https://example.com/p",
    subjects: [],
    ...fields,
  };
}

const statement = (predicateType: string, predicate: unknown, subject: unknown = []): string =>
  JSON.stringify({ _type: "https://in-toto.io/Statement/v0.1", predicateType, subject, predicate });

describe("attest attributes", () => {
  const parse = (key: string, value: string) => parseAttests(new Map([[key, value]]));

  it("have defaults and take CSV", () => {
    assert.deepEqual(
      parse("attest:provenance", "mode=min,inline-only=true").provenance,
      new Map([
        ["version", "v1"],
        ["mode", "min"],
        ["inline-only", "true"],
      ]),
    );
    assert.equal(parse("attest:sbom", "").sbom?.get("generator"), "docker/buildkit-syft-scanner:stable-1");
    assert.equal(parse("build-arg:BUILDKIT_ATTEST_SBOM", '"generator=x","p=a,b"').sbom?.get("p"), "a,b");
    assert.equal(parse("attest:provenance", "flag").provenance?.get("flag"), "");
    assert.equal(parse("build-arg:FOO", "x").sbom, undefined);
  });

  it("are refused when unknown or malformed", () => {
    assert.throws(() => parse("attest:foo", ""), { message: 'unknown attestation type "foo"' });
    assert.throws(() => parse("attest:sbom", 'a"b'), { message: /^failed to parse sbom: / });
  });
});

describe("package URLs", () => {
  const amd64 = { os: "linux", architecture: "amd64" };
  const digest = `sha256:${"a".repeat(64)}`;

  it("escape what registries' names may have", () => {
    assert.equal(imagePurl("alpine", amd64), "pkg:docker/alpine@latest?platform=linux%2Famd64");
    assert.equal(imagePurl("localhost:43895/a/b:v1", undefined), "pkg:docker/localhost%3A43895/a/b@v1");
    assert.equal(imagePurl(`alpine:3@${digest}`, undefined), `pkg:docker/alpine@3?digest=${digest}`);
    assert.equal(
      imagePurl(`a/b@${digest}`, amd64, { type: "oci", extra: [["vcs_url", "https://h/r?x=1#f"]] }),
      `pkg:oci/a/b?digest=${digest}&platform=linux%2Famd64&vcs_url=https:%2F%2Fh%2Fr%3Fx=1%23f`,
    );
    assert.equal(
      imagePurl("a/b", { os: "linux", architecture: "arm64", variant: "v8" }),
      "pkg:docker/a/b@latest?platform=linux%2Farm64",
    );
  });

  it("are of references only", () => {
    assert.throws(
      () => imagePurl("a b?x=y", undefined),
      (error) => isBuildError(error, "invalid_argument"),
    );
  });
});

describe("JSON texts", () => {
  it("keep numbers and strings as written", () => {
    const text =
      ' { "a" : [ 1.0, 12345678901234567890 , { } , [ ] ], "b\\"c\\\\" : "<x> \\u00e9", "d":{"e": null} } ';
    assert.equal(
      rewriteJson(text),
      '{"a":[1.0,12345678901234567890,{},[]],"b\\"c\\\\":"\\u003cx\\u003e \\u00e9","d":{"e":null}}',
    );
    assert.equal(
      rewriteJson(text, "  "),
      [
        "{",
        '  "a": [',
        "    1.0,",
        "    12345678901234567890,",
        "    {},",
        "    []",
        "  ],",
        '  "b\\"c\\\\": "\\u003cx\\u003e \\u00e9",',
        '  "d": {',
        '    "e": null',
        "  }",
        "}",
      ].join("\n"),
    );
    assert.equal(rewriteJson(""), "null");
    assert.throws(
      () => rewriteJson("{} x"),
      (error) => isBuildError(error, "invalid_argument"),
    );
  });

  it("of large statements are written in linear time", () => {
    const text = JSON.stringify({
      files: Array.from({ length: 50_000 }, (_, at) => ({ name: `\\"${at}` })),
    });
    const started = performance.now();
    assert.equal(rewriteJson(text), text);
    assert.ok(performance.now() - started < 5_000);
  });
});

describe("statements", () => {
  it("speak of what they are attached to", async () => {
    const made = await makeStatements(
      [
        attestation({ content: async () => Buffer.from('{"n":18446744073709551615}') }),
        attestation({
          subjects: [
            { kind: "raw", name: "", digests: [`sha256:${"1".repeat(64)}`] },
            { kind: "self", name: "other", digests: [] },
          ],
          content: async () => Buffer.from("{}"),
        }),
      ],
      [{ name: "pkg:docker/x", digest: { sha256: "2" } }],
      ctx,
    );
    const [first, second] = made;
    assert.equal(
      first && statementText(first, false),
      '{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://example.com/p","subject":[{"name":"pkg:docker/x","digest":{"sha256":"2"}}],"predicate":{"n":18446744073709551615}}',
    );
    assert.deepEqual(
      second?.subjects.map(({ name }) => name),
      ["_", "pkg:docker/x", "other"],
    );
  });
});

describe("bundles", () => {
  const bundle = (ref: ImmutableRef, predicateType = "") =>
    attestation({ kind: "bundle", path: "", predicateType, ref });
  const refused = (message: RegExp) => (error: unknown) =>
    isBuildError(error, "invalid_argument") && message.test((error as Error).message);

  it("become one attestation a file, core SBOMs first", async () => {
    using dir = new DirRef({
      "a.json": statement("t", { z: 1, a: 2 }, [{ name: "s", digest: { sha256: "3" } }]),
      "sbom.spdx.json": statement("t", null),
    });
    const core = { ...bundle(dir.ref, "t"), metadata: new Map([["sbom-core", Buffer.from("sbom")]]) };
    const [first, second] = await unbundle([core], ctx);
    assert.equal(first?.path, "sbom.spdx.json");
    assert.equal(second && (await attestationContent(second, ctx)), '{"a":2,"z":1}');
    assert.deepEqual(second?.subjects, [{ kind: "raw", name: "s", digests: ["sha256:3"] }]);
  });

  it("can't forge provenance", async () => {
    using dir = new DirRef({ "a.json": statement("https://slsa.dev/provenance/v1", {}) });
    await assert.rejects(unbundle([bundle(dir.ref)], ctx), refused(/may not bundle provenance/));
    const own = attestation({ predicateType: "https://slsa.dev/provenance/v0.2", ref: dir.ref });
    await assert.rejects(unbundle([own], ctx), refused(/may not set provenance/));
  });

  it("of other things than statements are refused", async () => {
    using other = new DirRef({ "a.json": statement("t2", {}) });
    await assert.rejects(unbundle([bundle(other.ref, "t")], ctx), refused(/does not match required/));
    using broken = new DirRef({ "a.json": "{" });
    await assert.rejects(unbundle([bundle(broken.ref)], ctx), refused(/cannot decode in-toto statement/));
    using nested = new DirRef({ "d/a.json": "{}" });
    await assert.rejects(unbundle([bundle(nested.ref)], ctx), refused(/not a regular file/));
    using device = new DirRef();
    symlinkSync("/dev/zero", join(device.path, "a.json"));
    await assert.rejects(unbundle([bundle(device.ref)], ctx));
  });

  it("that are huge or lead out of their tree are not read", async () => {
    using huge = new DirRef({ "a.json": "" });
    truncateSync(join(huge.path, "a.json"), 81 << 20);
    await assert.rejects(unbundle([bundle(huge.ref)], ctx), refused(/exceeds maximum allowed size/));
    using secret = new DirRef({ "secret.json": statement("t", { canary: true }) });
    using link = new DirRef();
    symlinkSync(join(secret.path, "secret.json"), join(link.path, "a.json"));
    await assert.rejects(unbundle([bundle(link.ref)], ctx), (error) => isBuildError(error, "not_found"));
  });

  it("without content or path are refused", async () => {
    await assert.rejects(unbundle([attestation({ path: "" })], ctx), refused(/does not have set path/));
    await assert.rejects(unbundle([attestation({})], ctx), refused(/available content/));
  });
});

describe("SBOM supplements", () => {
  it("name the layer of each file, of this tree only", async () => {
    using lower = new DirRef({ top: "1", "dir/kept": "1" });
    using upper = new DirRef({ "dir/kept": "1", "new": "2" });
    upper.write("top", "22", 5);
    symlinkSync("/etc", join(upper.path, "link"));
    using tree = new DirRef({}, [lower, upper]);
    const document = {
      spdxVersion: "SPDX-2.3",
      files: ["/top", "dir/kept", "new", "../../../../etc/passwd", "link/passwd", "top/x", "", "a\0b"].map(
        (fileName) => ({ fileName }),
      ),
    };
    const remote = { descriptors: [{ digest: "sha256:low" }, { digest: "sha256:up" }] } as unknown as Remote;
    const given = attestation({
      path: "sbom.spdx.json",
      predicateType: "https://spdx.dev/Document",
      metadata: new Map([["sbom-core", Buffer.from("sbom")]]),
      content: async () => Buffer.from(JSON.stringify(document)),
    });
    const text = await attestationContent(await supplementSbom(given, tree.ref, remote, ctx), ctx);
    const made = JSON.parse(text) as { files: { comment?: string }[] };
    assert.deepEqual(
      made.files.map(({ comment }) => comment),
      ["layerID: sha256:up", "layerID: sha256:low", "layerID: sha256:up", ...new Array<undefined>(5)],
    );
  });
});
