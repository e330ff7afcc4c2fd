import type { DescMessage, DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { type Cap, gatewayCaps, llbCaps } from "@kiln/api";
import { BuildError } from "@kiln/base";
import type { Channel } from "@kiln/grpc/client";

/** The connection of one frontend, and what its daemon can do. */
export class GatewayCalls {
  readonly channel: Channel;
  /** Capabilities of the gateway. */
  readonly caps: ReadonlySet<string>;
  readonly signal: AbortSignal;
  readonly #product: string;

  constructor(
    channel: Channel,
    daemon: { readonly caps: ReadonlySet<string>; readonly product: string; readonly signal: AbortSignal },
  ) {
    this.channel = channel;
    this.caps = daemon.caps;
    this.signal = daemon.signal;
    this.#product = daemon.product;
  }

  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    return this.channel.unary(method, request, { signal: this.signal });
  }

  /** @throws BuildError `unimplemented` when the daemon's gateway can't do something. */
  require(id: string): void {
    if (!this.caps.has(id)) throw this.#unsupported(gatewayCaps, id);
  }

  /** @throws BuildError `unimplemented` when the daemon lacks one of the capabilities that a graph needs. */
  requireLlb(needed: Iterable<string>, has: ReadonlySet<string>): void {
    // Some are written that no daemon advertises: those that this client doesn't know are the daemon's to judge.
    for (const id of needed) {
      if (!has.has(id) && llbCaps.some((cap) => cap.id === id)) throw this.#unsupported(llbCaps, id);
    }
  }

  #unsupported(known: readonly Cap[], id: string): BuildError {
    const cap = known.find((candidate) => candidate.id === id);
    const name = cap?.name === undefined ? "" : `(${cap.name})`;
    return new BuildError(
      "unimplemented",
      `requested ${cap?.status ?? "experimental"} feature ${id} ${name} is not supported by build server, please update ${this.#product || "buildkit"}`,
    );
  }
}
