import assert from "node:assert/strict";
import { test } from "node:test";
import { errorDetailTypes, gatewayCaps, llbCaps } from "@kiln/api";
import { type ExecMessage, LLBBridge, type ReturnRequest, type SolveRequest } from "@kiln/api/gateway";
import { BuildError, isBuildError } from "@kiln/base";
import { duplexPair, Router, type ServiceHandlers } from "@kiln/grpc";
import { image, local } from "@kiln/llb";
import {
  type BuildFunction,
  type FrontendEnvironment,
  imageResult,
  readFrontendEnvironment,
  runFrontend,
  sourceError,
} from "./index.ts";

type Handlers = Partial<ServiceHandlers<typeof LLBBridge>>;

interface Run {
  readonly returned: ReturnRequest | undefined;
  readonly solves: readonly SolveRequest[];
}

const ENVIRONMENT = readFrontendEnvironment({
  BUILDKIT_FRONTEND_OPT_0: "filename=a=b",
  BUILDKIT_FRONTEND_OPT_1: "cache-imports=[]",
  BUILDKIT_FRONTEND_OPT_2: "no-cache",
  BUILDKIT_SESSION_ID: "session",
  BUILDKIT_WORKERS: JSON.stringify([
    { id: "w", platforms: [{ os: "linux", architecture: "arm", variant: "v7" }, { os: 1 }] },
  ]),
  BUILDKIT_EXPORTEDPRODUCT: "docker",
});

async function run(
  build: BuildFunction,
  own: Handlers = {},
  environment: FrontendEnvironment = ENVIRONMENT,
): Promise<Run> {
  const [ours, theirs] = duplexPair();
  const solves: SolveRequest[] = [];
  let returned: ReturnRequest | undefined;
  const cap = ({ id }: { id: string }) => ({ ID: id, Enabled: true });
  const router = new Router().add(LLBBridge, {
    ping: () => ({ FrontendAPICaps: gatewayCaps.map(cap), LLBCaps: llbCaps.map(cap) }),
    inputs: () => ({ Definitions: {} }),
    solve: (request) => {
      solves.push(request);
      return { result: { result: { case: "ref", value: { id: `ref${solves.length}` } } } };
    },
    return: (request) => {
      returned = request;
      return {};
    },
    ...own,
  } as ServiceHandlers<typeof LLBBridge>);
  const connection = router.accept(ours, { transport: "frontend" });
  await runFrontend(build, { stream: theirs, environment });
  await connection.close({ force: true });
  return { returned, solves };
}

test("a frontend reads its settings, solves and returns an image", async () => {
  const platform = { os: "linux", architecture: "amd64" };
  const { returned, solves } = await run(
    async (client) => {
      assert.deepEqual(
        [...client.opts],
        [
          ["filename", "a=b"],
          ["cache-imports", "[]"],
          ["no-cache", ""],
        ],
      );
      assert.equal(client.sessionId, "session");
      assert.deepEqual(client.workers, [
        { id: "w", platforms: [{ os: "linux", architecture: "arm", variant: "v7" }] },
      ]);
      const { ref } = await client.solve({ definition: local("context").marshal({ platform }) });
      assert.equal(new TextDecoder().decode(await ref?.readFile("recipe", { length: 4 })), "text");
      const stat = await ref?.statFile("dir");
      assert.deepEqual([stat?.isDirectory, stat?.size, stat?.mode.toString(8)], [true, 7, "20000000755"]);
      return imageResult([{ platform, ref, config: { os: "linux" } }]);
    },
    {
      readFile: ({ Range: range }) => ({
        Data: new TextEncoder().encode("text and more").subarray(0, Number(range?.Length)),
      }),
      statFile: ({ Path: path }) => ({ stat: { path, size: 7n, mode: 0x8000_01ed } }),
    },
  );
  assert.equal(solves[0]?.FrontendOpt["cache-imports"], "[]");
  assert.equal(solves[0]?.allowResultArrayRef, true);
  const result = returned?.result;
  assert.deepEqual(result?.result.case === "ref" && result.result.value.id, "ref1");
  const texts = Object.entries(result?.metadata ?? {}).map(([key, value]) => [
    key,
    new TextDecoder().decode(value),
  ]);
  assert.deepEqual(texts, [
    ["containerimage.config", '{"os":"linux"}'],
    [
      "refs.platforms",
      '{"Platforms":[{"ID":"linux/amd64","Platform":{"architecture":"amd64","os":"linux"}}]}',
    ],
  ]);
});

test("several platforms are returned by their ids", async () => {
  const { returned } = await run(async (client) => {
    const images = [];
    for (const architecture of ["amd64", "arm64"]) {
      const platform = { os: "linux", architecture };
      const { ref } = await client.solve({ definition: image("a", { platform }).marshal({ platform }) });
      images.push({ platform, ref, config: "{}" });
    }
    return imageResult(images);
  });
  const { result } = returned?.result ?? {};
  assert.ok(result?.case === "refs");
  assert.deepEqual(
    Object.entries(result.value.refs).map(([key, { id }]) => [key, id]),
    [
      ["linux/amd64", "ref1"],
      ["linux/arm64", "ref2"],
    ],
  );
});

test("an error is returned with its code and its place; so is a refused result", async () => {
  const source = { filename: "recipe", language: "yaml", data: new TextEncoder().encode("x: y\n") };
  const at = { start: { line: 1, character: 0 }, end: { line: 1, character: 4 } };
  const thrown = await run(() => Promise.reject(sourceError("unknown key x", source, [at])));
  assert.equal(thrown.returned?.error?.message, "unknown key x");
  const [detail] = thrown.returned?.error?.details ?? [];
  assert.equal(detail?.typeUrl, errorDetailTypes.source);
  assert.match(new TextDecoder().decode(detail?.value), /"filename":"recipe".*"line":1/);

  let calls = 0;
  const errors: unknown[] = [];
  await run(() => Promise.resolve({}), {
    return: ({ error }) => {
      calls++;
      if (error === undefined) throw new BuildError("unknown", "return reference x not found");
      errors.push(error.message);
      return {};
    },
  });
  assert.deepEqual([calls, errors], [2, ["return reference x not found"]]);
});

test("the daemon's errors reach the frontend unchanged", async () => {
  const wire = [
    { typeUrl: errorDetailTypes.vertex, value: new TextEncoder().encode('{"digest":"sha256:1"}') },
  ];
  const { returned } = await run((client) => client.solve({ frontend: "x" }), {
    solve: () => {
      throw new BuildError("permission_denied", "network.host is not allowed", { wire });
    },
  });
  assert.equal(returned?.error?.message, "network.host is not allowed");
  assert.equal(returned?.error?.code, 2);
  const [detail] = returned?.error?.details ?? [];
  assert.equal(new TextDecoder().decode(detail?.value), '{"digest":"sha256:1"}');
});

test("what a daemon can't do is refused by name", async () => {
  const ping = () => ({
    FrontendAPICaps: [{ ID: "return", Enabled: true }],
    LLBCaps: [{ ID: "source.local" }],
  });
  const { returned } = await run(
    async (client) => {
      await assert.rejects(client.newContainer({ mounts: [] }), (error) =>
        isBuildError(error, "unimplemented"),
      );
      await client.solve({ definition: image("a").marshal({}) });
      return undefined;
    },
    { ping },
  );
  assert.equal(
    returned?.error?.message,
    "requested experimental feature source.image  is not supported by build server, please update docker",
  );
});

test("processes: input, output, exit code, and an end that isn't known", async () => {
  const seen: string[] = [];
  const handlers: Handlers = {
    newContainer: ({ Mounts: mounts }) => {
      seen.push(mounts.map(({ dest, resultID }) => `${dest}=${resultID}`).join());
      return {};
    },
    releaseContainer: () => {
      seen.push("released");
      return {};
    },
    execProcess: async (call) => {
      for await (const { ProcessID: id, Input: input } of call) {
        const send = (message: ExecMessage["Input"]) => call.send({ ProcessID: id, Input: message });
        if (input.case === "Init") {
          await send({ case: "Started", value: {} } as ExecMessage["Input"]);
          const [word = ""] = input.value.Meta?.args ?? [];
          if (word === "unknown") {
            const value = { Code: 255, Error: { code: 2, message: "the runtime is gone" } };
            await send({ case: "Exit", value } as ExecMessage["Input"]);
            await send({ case: "Done", value: {} } as ExecMessage["Input"]);
          }
        } else if (input.case === "File" && !input.value.EOF) {
          await send({ case: "File", value: { Fd: 1, Data: input.value.Data } } as ExecMessage["Input"]);
        } else if (input.case === "File") {
          await send({ case: "Exit", value: { Code: 3 } } as ExecMessage["Input"]);
          await send({ case: "Done", value: {} } as ExecMessage["Input"]);
        }
      }
    },
  };
  const { returned } = await run(async (client) => {
    const { ref } = await client.solve({ frontend: "x" });
    await using container = await client.newContainer({ mounts: [{ dest: "/", ref }] });
    const { exitCode, stdout } = await container.run({ args: ["cat"], stdin: "words" });
    assert.deepEqual([exitCode, new TextDecoder().decode(stdout)], [3, "words"]);
    await assert.rejects(container.run({ args: ["unknown"], stdin: "" }), /the runtime is gone/);
    return undefined;
  }, handlers);
  assert.equal(returned?.error, undefined);
  assert.deepEqual(seen, ["/=ref1", "released"]);
});

test("a connection that is lost ends what the frontend waits for", async () => {
  const [ours, theirs] = duplexPair();
  const router = new Router().add(LLBBridge, {
    ping: () => ({ FrontendAPICaps: gatewayCaps.map(({ id }) => ({ ID: id, Enabled: true })) }),
    solve: () => {
      ours.destroy();
      return new Promise<never>(() => undefined);
    },
  } as unknown as ServiceHandlers<typeof LLBBridge>);
  router.accept(ours, { transport: "frontend" });
  const running = runFrontend((client) => client.solve({ frontend: "x" }), {
    stream: theirs,
    environment: ENVIRONMENT,
  });
  await assert.rejects(running, (error) => isBuildError(error, "unavailable"));
});
