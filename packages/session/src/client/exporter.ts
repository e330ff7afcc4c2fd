import type { MessageInitShape } from "@bufbuild/protobuf";
import { Exporter } from "@kiln/api/exporter";
import {
  type CheckPolicyRequest,
  type CheckPolicyResponseSchema,
  PolicyVerifier,
} from "@kiln/api/policysession";
import { BuildError } from "@kiln/base";
import type { Router } from "@kiln/grpc/server";
import type { Attachable } from "./attachable.ts";

/** An exporter with its attributes, as in a solve request. */
export interface ExporterChoice {
  readonly type: string;
  readonly attrs: Readonly<Record<string, string>>;
}

/** Chooses exporters when a result is there, and hears of the answers. */
export class ExporterProvider implements Attachable {
  readonly #find: ExporterCallbacks["find"];
  readonly #finalize: ExporterCallbacks["finalize"];

  constructor(callbacks: ExporterCallbacks) {
    this.#find = callbacks.find;
    this.#finalize = callbacks.finalize;
  }

  addTo(router: Router): void {
    router.add(Exporter, {
      findExporters: async (request) => {
        const found = await this.#find(request.metadata, request.refs);
        return { exporters: found.map((e) => ({ Type: e.type, Attrs: { ...e.attrs } })) };
      },
      finalizeExport: async (request) => {
        if (!this.#finalize)
          throw new BuildError("unimplemented", "no exporter finalize callback registered");
        await this.#finalize(request.exporterResponse);
        return {};
      },
    });
  }
}

/** What an {@link ExporterProvider} asks. */
export interface ExporterCallbacks {
  readonly find: (
    metadata: Readonly<Record<string, Uint8Array>>,
    refs: readonly string[],
  ) => Promise<readonly ExporterChoice[]>;
  readonly finalize?: ((response: Readonly<Record<string, string>>) => Promise<void>) | undefined;
}

/** Decides about sources, or asks the daemon for more metadata about one. */
export class PolicyProvider implements Attachable {
  readonly #check: PolicyCheck;

  constructor(check: PolicyCheck) {
    this.#check = check;
  }

  addTo(router: Router): void {
    router.add(PolicyVerifier, { checkPolicy: (request, ctx) => this.#check(request, ctx.signal) });
  }
}

/** Answers one policy question. */
export type PolicyCheck = (
  request: CheckPolicyRequest,
  signal: AbortSignal,
) => Promise<MessageInitShape<typeof CheckPolicyResponseSchema>>;
