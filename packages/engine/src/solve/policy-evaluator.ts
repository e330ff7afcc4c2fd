import type { SourceOp } from "@kiln/api/pb";
import type { Policy } from "@kiln/api/sourcepolicy";
import type { Platform } from "@kiln/oci";

/** Decides about sources: static policies first, then the client's own (buildkit.md §10.3). */
export interface PolicyEvaluator {
  /**
   * Changes `source` where a policy says so; `extra` policies count beside those of the build.
   *
   * @returns whether it was changed.
   * @throws BuildError `permission_denied`.
   */
  evaluate(source: SourceOp, platform: Platform | undefined, extra: readonly Policy[]): Promise<boolean>;
}
