import type { MessageInitShape } from "@bufbuild/protobuf";
import type { APICap } from "@kiln/api/apicaps";
import { LLBBridge, type PongResponse, type Result, type SolveRequestSchema } from "@kiln/api/gateway";
import type { Channel } from "@kiln/grpc/client";
import { rpc, toRpc } from "./rpc-error.ts";

/** The metadata key that ties gateway calls on the public socket to a build. */
const BUILD_ID_KEY = "buildkit-controlapi-buildid";
const PING_TIMEOUT_MS = 15_000;

/** What a client-driven build asks the gateway to solve. */
export type GatewaySolve = Pick<
  MessageInitShape<typeof SolveRequestSchema>,
  | "Definition"
  | "Frontend"
  | "FrontendOpt"
  | "FrontendInputs"
  | "CacheImports"
  | "Evaluate"
  | "SourcePolicies"
>;

/** The gateway of one running build: what a frontend sees. */
export class GatewayClient {
  readonly #channel: Channel;
  readonly #signal: AbortSignal;
  readonly #defaults: Readonly<Record<string, string>>;
  readonly ref: string;

  /** `defaults` are frontend options that every request gets unless it has its own. */
  constructor(
    channel: Channel,
    build: { ref: string; signal: AbortSignal; defaults?: Readonly<Record<string, string>> },
  ) {
    this.#channel = channel;
    this.ref = build.ref;
    this.#signal = build.signal;
    this.#defaults = build.defaults ?? {};
  }

  get #call(): { metadata: Record<string, string>; signal: AbortSignal } {
    return { metadata: { [BUILD_ID_KEY]: this.ref }, signal: this.#signal };
  }

  /** What the daemon can do. Waits until it knows the build. */
  ping(): Promise<PongResponse> {
    return rpc(this.#channel.unary(LLBBridge.method.ping, {}, { ...this.#call, timeoutMs: PING_TIMEOUT_MS }));
  }

  async solve(request: GatewaySolve): Promise<Result | undefined> {
    const response = await rpc(
      this.#channel.unary(
        LLBBridge.method.solve,
        {
          ...request,
          FrontendOpt: { ...this.#defaults, ...request.FrontendOpt },
          allowResultReturn: true,
          allowResultArrayRef: true,
        },
        this.#call,
      ),
    );
    return response.result;
  }

  /** Computes a result now, so that its errors show. */
  async evaluate(ref: string): Promise<void> {
    await rpc(this.#channel.unary(LLBBridge.method.evaluate, { Ref: ref }, this.#call));
  }

  /** Size in bytes of a file of a result. */
  async fileSize(ref: string, path: string): Promise<number> {
    const { stat } = await rpc(
      this.#channel.unary(LLBBridge.method.statFile, { Ref: ref, Path: path }, this.#call),
    );
    return Number(stat?.size ?? 0n);
  }

  /** A file of a result, or its first `length` bytes. */
  async readFile(ref: string, path: string, length?: number): Promise<Uint8Array> {
    const range = length === undefined ? {} : { Range: { Offset: 0n, Length: BigInt(length) } };
    const request = { Ref: ref, FilePath: path, ...range };
    return (await rpc(this.#channel.unary(LLBBridge.method.readFile, request, this.#call))).Data;
  }

  /** Ends the build with a result. */
  async returnResult(result: Result | undefined): Promise<void> {
    const request = result === undefined ? { result: {} } : { result };
    await rpc(this.#channel.unary(LLBBridge.method.return, request, this.#call));
  }

  /** Ends the build with an error. */
  async returnError(error: unknown): Promise<void> {
    const { statusFromError } = await import("@kiln/grpc/client");
    await rpc(
      this.#channel.unary(LLBBridge.method.return, { error: statusFromError(toRpc(error)) }, this.#call),
    );
  }
}

/** The ids of the capabilities that are enabled. */
export function enabledCaps(caps: readonly APICap[]): ReadonlySet<string> {
  return new Set(caps.filter((cap) => cap.Enabled).map((cap) => cap.ID));
}
