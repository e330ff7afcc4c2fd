import type { Router } from "@kiln/grpc/server";

/** Something that a client offers to the daemon during a session. */
export interface Attachable {
  /** Adds its services to the session's server. */
  addTo(router: Router): void;
}
