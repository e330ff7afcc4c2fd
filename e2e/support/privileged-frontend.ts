/**
 * A frontend that tries to get every privilege in every way that starts a process, and returns what came of it: one line
 * `way × privilege: answer` each, as the error of the build.
 */
import { create, toBinary } from "@bufbuild/protobuf";
import { OpSchema } from "@kiln/api/pb";
import { type FrontendClient, runFrontend } from "@kiln/client/frontend";
import { build, type Definition, encodeDefinition, image, scratch } from "@kiln/llb";
import { type Digest, sha256 } from "@kiln/oci";

type Privilege = "network.host" | "security.insecure" | "network 9" | "security 2" | "security -1" | "device";

/** The fields of an exec op, and of containers and their processes, that ask for a privilege. */
const EXEC_FIELDS: Readonly<Record<Privilege, object>> = {
  "network.host": { network: 1 },
  "security.insecure": { security: 1 },
  "network 9": { network: 9 },
  "security 2": { security: 2 },
  "security -1": { security: -1 },
  device: { cdiDevices: [{ name: "vendor.example/class=all" }] },
};
const PRIVILEGES = Object.keys(EXEC_FIELDS) as Privilege[];
const platform = { os: "linux", architecture: process.arch === "arm64" ? "arm64" : "amd64" };

/** `true` on busybox with some fields more, in wire form: the builder wouldn't write values that there aren't. */
function privileged(fields: object): Definition {
  const base = image("busybox", { platform }).marshal({ platform });
  const source = base.def[0] ?? new Uint8Array();
  const exec = toBinary(
    OpSchema,
    create(OpSchema, {
      inputs: [{ digest: sha256(source) }],
      platform: { OS: platform.os, Architecture: platform.architecture },
      op: {
        case: "exec",
        value: {
          meta: { args: ["/bin/true"], cwd: "/", env: ["PATH=/bin"] },
          mounts: [{ input: 0n, dest: "/", output: 0n }],
          ...fields,
        },
      },
    }),
  );
  const last = toBinary(OpSchema, create(OpSchema, { inputs: [{ digest: sha256(exec) }] }));
  return { def: [source, exec, last], metadata: new Map<Digest, never>() };
}

function dockerfile(text: string): ReadonlyMap<string, Definition> {
  const data = new TextEncoder().encode(text);
  const file = scratch().file({ kind: "mkfile", path: "Dockerfile", mode: 0o644, data });
  return new Map([["dockerfile", file.marshal({ platform })]]);
}

/** Ways to start a process. Those that can't ask for a privilege leave it out. */
const WAYS: Readonly<
  Record<string, (client: FrontendClient, privilege: Privilege) => Promise<unknown> | undefined>
> = {
  definition: (client, privilege) =>
    client.solve({ definition: privileged(EXEC_FIELDS[privilege]), evaluate: true }),
  "lazy definition": async (client, privilege) => {
    const { ref } = await client.solve({ definition: privileged(EXEC_FIELDS[privilege]) });
    await ref?.readFile("/bin/true", { length: 1 });
  },
  "definition in a file": (client, privilege) => {
    const data = encodeDefinition(privileged(EXEC_FIELDS[privilege]));
    const file = scratch().file({ kind: "mkfile", path: "buildkit.llb.definition", mode: 0o644, data });
    return client.solve({ definition: build(file).marshal({ platform }), evaluate: true });
  },
  "input of a frontend": (client, privilege) =>
    client.solve({
      frontend: "dockerfile.v0",
      opts: new Map([["cmdline", "x"]]),
      inputs: new Map([
        ...dockerfile("FROM scratch\nCOPY bin/true /\n"),
        ["context", privileged(EXEC_FIELDS[privilege])],
      ]),
      evaluate: true,
    }),
  "Dockerfile of a frontend": (client, privilege) => {
    const flag = { "network.host": "--network=host", "security.insecure": "--security=insecure" }[
      privilege as string
    ];
    if (flag === undefined) return undefined;
    const inputs = dockerfile(`FROM busybox\nRUN ${flag} true\n`);
    return client.solve({
      frontend: "dockerfile.v0",
      opts: new Map([["cmdline", "x"]]),
      inputs,
      evaluate: true,
    });
  },
  "option of a frontend": (client, privilege) => {
    if (privilege !== "network.host") return undefined;
    const opts = new Map([
      ["cmdline", "x"],
      ["force-network-mode", "host"],
    ]);
    return client.solve({
      frontend: "dockerfile.v0",
      opts,
      inputs: dockerfile("FROM busybox\nRUN true\n"),
      evaluate: true,
    });
  },
  container: async (client, privilege) => {
    const { ref } = await client.solve({ definition: image("busybox", { platform }).marshal({ platform }) });
    const network = { "network.host": "host" as const }[privilege as string];
    await using made = await client.newContainer({
      mounts: [{ dest: "/", ref }],
      ...(network === undefined ? {} : { network }),
    });
    await made.run({ args: ["/bin/true"], insecure: privilege === "security.insecure" });
    if (network === undefined && privilege !== "security.insecure") return "no such field";
    return undefined;
  },
};

async function answer(
  client: FrontendClient,
  way: string,
  privilege: Privilege,
): Promise<string | undefined> {
  try {
    const trying = WAYS[way]?.(client, privilege);
    if (trying === undefined) return undefined;
    return (await trying) === "no such field" ? undefined : "allowed";
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

await runFrontend(async (client) => {
  const lines = ["answers:"];
  for (const way of Object.keys(WAYS)) {
    for (const privilege of PRIVILEGES) {
      const said = await answer(client, way, privilege);
      if (said !== undefined) lines.push(`${way} × ${privilege}: ${said}`);
    }
  }
  throw new Error(lines.join("\n"));
});
