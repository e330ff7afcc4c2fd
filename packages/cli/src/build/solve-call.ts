/** Asks a frontend what `--call` wants to know. */
import type { Result } from "@kiln/api/gateway";
import { errorMessage } from "@kiln/base";
import type { GatewayClient, GatewaySolve } from "@kiln/client";

/** Frontends that answer where the one of an old daemon doesn't (Buildx's choice). */
const OUTLINE_FRONTEND =
  "docker/dockerfile:1.7.1@sha256:a57df69d0ea827fb7266491f2813635de6f17269be881f696fbfdf2d83dda33e";
const LINT_FRONTEND =
  "docker/dockerfile:1.8.1@sha256:e87caa74dcb7d46cd820352bfea12591f3dba3ddc4285e19c7dcd13359f7cefd";

/**
 * Solves a request for `frontend.lint`, `frontend.outline` and so on. Where the frontend doesn't know it, a published
 * one is asked instead.
 *
 * @throws the first frontend's error when that one can't answer either.
 */
export async function solveCall(gateway: GatewayClient, request: GatewaySolve): Promise<Result | undefined> {
  try {
    return await gateway.solve(request);
  } catch (error) {
    const other = otherFrontend(request.FrontendOpt?.requestid, errorMessage(error));
    if (other === undefined) throw error;
    const options = { ...request.FrontendOpt, "build-arg:BUILDKIT_SYNTAX": other };
    return await gateway.solve({ ...request, FrontendOpt: options }).catch(() => {
      throw error;
    });
  }
}

function otherFrontend(id: string | undefined, message: string): string | undefined {
  if (id === undefined || !message.includes(`unsupported request ${id}`)) return undefined;
  if (id === "frontend.lint") return LINT_FRONTEND;
  return id === "frontend.outline" || id === "frontend.targets" ? OUTLINE_FRONTEND : undefined;
}
