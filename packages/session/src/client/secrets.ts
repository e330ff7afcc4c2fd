import { Secrets } from "@kiln/api/secrets";
import { BuildError } from "@kiln/base";
import type { Router } from "@kiln/grpc/server";
import { maxSecretBytes } from "../headers.ts";
import type { Attachable } from "./attachable.ts";

/** Gives the daemon secrets by id; `lookup` answers undefined for those that it doesn't have. */
export class SecretsProvider implements Attachable {
  readonly #lookup: (id: string) => Promise<Uint8Array | undefined> | Uint8Array | undefined;

  constructor(lookup: (id: string) => Promise<Uint8Array | undefined> | Uint8Array | undefined) {
    this.#lookup = lookup;
  }

  addTo(router: Router): void {
    router.add(Secrets, {
      getSecret: async (request) => {
        const data = await this.#lookup(request.ID);
        if (data === undefined) throw new BuildError("not_found", "not found");
        if (data.length > maxSecretBytes)
          throw new BuildError("unknown", `invalid secret size ${data.length}`);
        return { data };
      },
    });
  }
}
