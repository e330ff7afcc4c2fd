import type { MessageInitShape } from "@bufbuild/protobuf";
import { Content, type InfoResponse as ContentInfo } from "@kiln/api/content";
import {
  type BuildHistoryEvent,
  type BuildHistoryRequestSchema,
  Control,
  type DiskUsageRequestSchema,
  type PruneRequestSchema,
  type UpdateBuildHistoryRequestSchema,
  type UsageRecord,
} from "@kiln/api/control";
import type { BuildkitVersion, WorkerRecord } from "@kiln/api/worker";
import { BuildError, isBuildError, sleep } from "@kiln/base";
import { type CallOptions, Channel, type ClientTls, type Dial } from "@kiln/grpc/client";
import type { SolveStatus } from "@kiln/progress";
import { authorityOf, DEFAULT_ADDRESS, dialTo } from "./dial.ts";
import { rpc, rpcStream } from "./rpc-error.ts";
import { type SolveOptions, type SolveResult, solve } from "./solve.ts";
import { statusFromProto } from "./status-from-proto.ts";

/** How a {@link BuildkitClient} connects. */
export interface ConnectOptions {
  readonly tls?: ClientTls;
  /** Opens the stream instead of dialling the address. */
  readonly dial?: Dial;
  /** How long {@link BuildkitClient.connect} waits for the daemon to answer; not at all by default. */
  readonly waitMs?: number;
  readonly signal?: AbortSignal;
}

const WAIT_STEP_MS = 50;

/**
 * A connection to any BuildKit: kilnd, buildkitd, or one inside a container. Errors are `BuildError`s whose text
 * is the daemon's, with the name of the status code in front; read their details with `failureOf`.
 */
export class BuildkitClient implements AsyncDisposable {
  readonly address: string;
  readonly channel: Channel;
  #version: BuildkitVersion | undefined;

  constructor(channel: Channel, address = "") {
    this.channel = channel;
    this.address = address;
  }

  /** Connects to an address (see `dialTo`) on the first call, or at once with `waitMs`. */
  static async connect(address = DEFAULT_ADDRESS, opts: ConnectOptions = {}): Promise<BuildkitClient> {
    const dial = opts.dial ?? dialTo(address, opts.tls);
    const authority = opts.tls?.serverName ? opts.tls.serverName : authorityOf(address);
    const client = new BuildkitClient(new Channel(dial, { authority, userAgent: "kiln" }), address);
    if (opts.waitMs !== undefined) {
      try {
        await client.wait(opts.waitMs, opts.signal);
      } catch (error) {
        await client.close();
        throw error;
      }
    }
    return client;
  }

  /** Waits until the daemon answers. @throws the last reason after `timeoutMs`. */
  async wait(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    let reason: unknown;
    for (;;) {
      try {
        await this.info({ signal, timeoutMs: Math.max(1, deadline - Date.now()) });
        return;
      } catch (error) {
        if (isBuildError(error, "unimplemented")) return;
        // Why the connection failed says more than that time is up.
        if (isBuildError(error, "deadline_exceeded")) throw reason ?? error;
        reason = error;
        const mayRetry = isBuildError(error, "unavailable") && !isCertificateError(error);
        if (!mayRetry || Date.now() + WAIT_STEP_MS >= deadline) throw error;
        await sleep(WAIT_STEP_MS, signal);
      }
    }
  }

  /** The daemon's version. */
  async info(opts: CallOptions = {}): Promise<BuildkitVersion | undefined> {
    this.#version = (await rpc(this.channel.unary(Control.method.info, {}, opts))).buildkitVersion;
    return this.#version;
  }

  /** What {@link info} said last, undefined when it wasn't asked. */
  get knownVersion(): BuildkitVersion | undefined {
    return this.#version;
  }

  /** The daemon's workers; `filter` in containerd's syntax. */
  async listWorkers(filter: readonly string[] = [], opts: CallOptions = {}): Promise<WorkerRecord[]> {
    return (await rpc(this.channel.unary(Control.method.listWorkers, { filter: [...filter] }, opts))).record;
  }

  /** The records of the build cache. */
  async diskUsage(
    request: MessageInitShape<typeof DiskUsageRequestSchema> = {},
    opts: CallOptions = {},
  ): Promise<UsageRecord[]> {
    return (await rpc(this.channel.unary(Control.method.diskUsage, request, opts))).record;
  }

  /** Deletes build cache; yields each record that went. */
  prune(
    request: MessageInitShape<typeof PruneRequestSchema>,
    opts: CallOptions = {},
  ): AsyncGenerator<UsageRecord, void, undefined> {
    return rpcStream(this.channel.serverStream(Control.method.prune, request, opts));
  }

  /** Progress of a build that runs, or the replay of one that ran. */
  async *status(ref: string, opts: CallOptions = {}): AsyncGenerator<SolveStatus, void, undefined> {
    for await (const response of rpcStream(
      this.channel.serverStream(Control.method.status, { Ref: ref }, opts),
    )) {
      yield statusFromProto(response);
    }
  }

  /** Records of builds; see `BuildHistoryRequest`. */
  history(
    request: MessageInitShape<typeof BuildHistoryRequestSchema>,
    opts: CallOptions = {},
  ): AsyncGenerator<BuildHistoryEvent, void, undefined> {
    return rpcStream(this.channel.serverStream(Control.method.listenBuildHistory, request, opts));
  }

  /** Pins, unpins, deletes or finishes a record. */
  async updateHistory(
    request: MessageInitShape<typeof UpdateBuildHistoryRequestSchema>,
    opts: CallOptions = {},
  ): Promise<void> {
    await rpc(this.channel.unary(Control.method.updateBuildHistory, request, opts));
  }

  /** Size and times of a blob of the daemon's content store. */
  async contentInfo(digest: string, opts: CallOptions = {}): Promise<ContentInfo> {
    return rpc(this.channel.unary(Content.method.info, { digest }, opts));
  }

  /** A blob of the daemon's content store, in pieces. */
  async *readContent(digest: string, opts: CallOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const part of rpcStream(this.channel.serverStream(Content.method.read, { digest }, opts))) {
      yield part.data;
    }
  }

  /** A whole blob. @throws BuildError `resource_exhausted` when it's larger than `maxBytes`. */
  async readBlob(digest: string, maxBytes = 64 << 20, opts: CallOptions = {}): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let size = 0;
    for await (const part of this.readContent(digest, opts)) {
      size += part.length;
      if (size > maxBytes) throw new BuildError("resource_exhausted", `blob ${digest} is too large`);
      parts.push(part);
    }
    return Buffer.concat(parts);
  }

  /** Runs a build; see {@link SolveOptions}. */
  solve(opts: SolveOptions): Promise<SolveResult> {
    return solve(this.channel, opts);
  }

  async close(): Promise<void> {
    await this.channel.close({ force: true });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** True for a certificate that doesn't fit: waiting doesn't help. */
function isCertificateError(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const code = "code" in cause ? String(cause.code) : "";
    if (/^(ERR_TLS_|CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO)/.test(code)) return true;
  }
  return false;
}
