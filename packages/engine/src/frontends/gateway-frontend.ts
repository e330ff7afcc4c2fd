import { toBinary } from "@bufbuild/protobuf";
import { type Definition, DefinitionSchema } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import type { ExecMount, SandboxSpec } from "@kiln/executor";
import type { ImmutableRef } from "@kiln/store";
import { groupOf } from "../session-group.ts";
import { JobBridge } from "../solve/bridge.ts";
import { frontendCapDetail } from "../solve/wire-details.ts";
import { KILN_BUILDKIT_VERSION, KILN_PACKAGE, KILN_REVISION } from "../version.ts";
import type { Worker } from "../worker/worker.ts";
import type { Frontend, FrontendRequest, FrontendResult } from "./frontend.ts";
import { capNames, type FrontendImage, findFrontendImage, repositoryOf } from "./frontend-image.ts";
import { runFrontend } from "./frontend-process.ts";
import { GatewayBridge } from "./gateway-bridge.ts";

const METADATA_FILE = "/run/config/buildkit/metadata/frontend.bin";
const INPUTS_CAP = "moby.buildkit.frontend.inputs";
/** What one frontend may write to the daemon's standard error. */
const MAX_STDERR_BYTES = 1 << 20;

/** How the frontend of images is set up. */
export interface GatewayFrontendOptions {
  /** Repositories that frontends may come from; all when empty. */
  readonly allowedRepositories: readonly string[];
}

/**
 * `gateway.v0`: a frontend that is an image. It runs in a container and speaks the gateway API over its
 * standard streams.
 *
 * @throws BuildError for an allowed repository that is no image name.
 */
export function createGatewayFrontend(options: GatewayFrontendOptions): Frontend {
  const allowed = new Set(options.allowedRepositories.map(repositoryOf));
  return { name: "gateway.v0", solve: (request) => solveWithImage(request, allowed) };
}

async function solveWithImage(
  request: FrontendRequest,
  allowed: ReadonlySet<string>,
): Promise<FrontendResult> {
  const { attrs, bridge, inputs, signal } = request;
  if (attrs.has("gateway-devel")) {
    throw new BuildError("unknown", "development gateway is no longer supported");
  }
  const source = attrs.get("source");
  if (source === undefined) throw new BuildError("unknown", "no source specified for gateway");
  if (allowed.size > 0 && !allowed.has(repositoryOf(source))) {
    throw new BuildError("unknown", `'${source}' is not an allowed gateway source`);
  }
  if (!(bridge instanceof JobBridge)) {
    throw new BuildError("internal", "gateway.v0 needs the daemon's own bridge");
  }
  const image = await findFrontendImage(request, source);
  checkCaps(image, attrs.get("frontend.caps") ?? "", inputs.size > 0);
  const solved = await bridge.solve(requestFor(image.definition), signal);
  try {
    if (solved.ref === undefined) {
      throw new BuildError("unknown", "gateway source didn't return default result");
    }
    const { result } = await solved.ref.result(signal);
    return await runImage({ request, bridge, image, tree: result.ref });
  } finally {
    await solved.ref?.release();
  }
}

function requestFor(definition: Definition): Parameters<JobBridge["solve"]>[0] {
  return {
    definition,
    frontend: "",
    frontendAttrs: new Map(),
    frontendInputs: new Map(),
    cacheImports: [],
    sourcePolicies: [],
    evaluate: false,
  };
}

/** @throws BuildError `unimplemented` for a capability that the image doesn't say it has. */
function checkCaps(image: FrontendImage, wanted: string, hasInputs: boolean): void {
  const names = capNames(wanted);
  if (hasInputs) names.add(INPUTS_CAP);
  for (const name of names) {
    if (image.caps.has(name)) continue;
    throw new BuildError("unimplemented", `unsupported frontend capability ${name}`, {
      wire: [frontendCapDetail(name)],
    });
  }
}

async function runImage(at: {
  readonly request: FrontendRequest;
  readonly bridge: JobBridge;
  readonly image: FrontendImage;
  readonly tree: ImmutableRef | undefined;
}): Promise<FrontendResult> {
  const { request, bridge, image, tree } = at;
  const { signal, inputs } = request;
  const { worker } = bridge.host;
  const ctx = { signal, session: groupOf([bridge.sessionId]) };
  const root = await worker.refs.newMutable(tree, { description: "root of a frontend", ctx });
  try {
    await using mountable = await root.mount(false, ctx);
    await using gateway = new GatewayBridge(bridge, { inputs });
    return await runFrontend(
      gateway,
      {
        executor: worker.executor,
        onStderr: limitedStderr(),
        container: {
          rootfs: mountable.mounts,
          mounts: [metadataMount(image.definition)],
          process: {
            args: image.args,
            env: frontendEnv(image, request.attrs, bridge),
            user: "",
            cwd: image.cwd,
            tty: false,
          },
          sandbox: sandboxOf(image, bridge),
        },
      },
      signal,
    );
  } finally {
    await root.release();
  }
}

function sandboxOf(image: FrontendImage, bridge: JobBridge): SandboxSpec {
  const offline = isTrue(image.labels.get("moby.buildkit.frontend.network.none") ?? "");
  const proxy = bridge.proxyNetwork && !offline;
  const check = proxy ? bridge.proxyCheck() : undefined;
  return {
    netMode: offline ? "none" : "default",
    removeMountStubsRecursive: true,
    ...(proxy ? { proxy: check === undefined ? {} : { check } } : {}),
  };
}

/** Go's `strconv.ParseBool`; what it refuses is false. */
function isTrue(text: string): boolean {
  return ["1", "t", "T", "TRUE", "true", "True"].includes(text);
}

/** The definition that the frontend came from, for frontends that build more of their own image. */
function metadataMount(definition: Definition): ExecMount {
  return {
    kind: "file",
    dest: METADATA_FILE,
    readonly: true,
    data: toBinary(DefinitionSchema, definition),
    uid: 0,
    gid: 0,
    mode: 0o400,
  };
}

function frontendEnv(image: FrontendImage, attrs: ReadonlyMap<string, string>, bridge: JobBridge): string[] {
  const opts = [...attrs].map(([key, value], i) => `BUILDKIT_FRONTEND_OPT_${i}=${key}=${value}`);
  return [
    ...image.env,
    ...opts,
    `BUILDKIT_SESSION_ID=${bridge.sessionId}`,
    `BUILDKIT_WORKERS=${JSON.stringify([workerInfo(bridge.host.worker)])}`,
    "BUILDKIT_EXPORTEDPRODUCT=buildkit",
  ];
}

/** The worker as Go's client has it (`client.WorkerInfo`). */
function workerInfo(worker: Worker): unknown {
  return {
    id: worker.id,
    labels: Object.fromEntries(worker.labels),
    platforms: worker.platforms(),
    gcPolicy: null,
    buildkitVersion: { package: KILN_PACKAGE, version: KILN_BUILDKIT_VERSION, revision: KILN_REVISION },
    cdiDevices: null,
  };
}

/** The daemon's own standard error, for a while. */
function limitedStderr(): (chunk: Uint8Array) => void {
  let left = MAX_STDERR_BYTES;
  return (chunk) => {
    if (left <= 0) return;
    process.stderr.write(chunk.subarray(0, left));
    left -= chunk.length;
  };
}
