import { errorDetailTypes } from "@kiln/api";
import { BuildError } from "@kiln/base";
import { goJson } from "@kiln/formats";
import type { ReturnedResult } from "./results.ts";

/** One kind of question that a frontend answers besides building (`--call`). */
export interface Subrequest {
  /** `frontend.outline`, `frontend.targets`, `frontend.lint` or one of its own. */
  readonly name: string;
  readonly version: string;
  readonly description: string;
}

/** The question that takes no file to answer: which others there are. */
const DESCRIBE: Subrequest = {
  name: "frontend.subrequests.describe",
  version: "1.0.0",
  description: "List available subrequest types",
};

/** The answer to a question: JSON for programs, text for people; no file system. */
export function subrequestResult(json: unknown, text: string, version = "1.0.0"): ReturnedResult {
  return {
    metadata: new Map([
      ["result.json", goJson(json as object, { indent: "  " })],
      ["result.txt", text],
      ["version", version],
    ]),
  };
}

/** The answer to `frontend.subrequests.describe` for a frontend that answers `requests` too. */
export function describeSubrequests(requests: readonly Subrequest[]): ReturnedResult {
  const all = [...requests, DESCRIBE];
  const metadata = ["result.json", "result.txt"].map((name) => ({ name, description: "" }));
  const json = all.map(({ name, version, description }) => ({
    ...{ name, version, type: "rpc", description },
    ...{ opts: [], inputs: null, metadata, refs: null },
  }));
  const rows = all.map(({ name, version, description }) => [
    name.replace(/^frontend\./, ""),
    version,
    description,
  ]);
  return subrequestResult(json, table([["NAME", "VERSION", "DESCRIPTION"], ...rows]));
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]?.map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0))) ?? [];
  const line = (row: readonly string[]): string =>
    row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd((widths[i] ?? 0) + 1))).join("");
  return rows.map((row) => `${line(row)}\n`).join("");
}

/** The error for a question that a frontend doesn't answer; clients recognise it. */
export function unsupportedRequest(id: string): BuildError {
  return new BuildError("unknown", `unsupported request ${id}`, {
    wire: [{ typeUrl: errorDetailTypes.subrequest, value: new TextEncoder().encode(goJson({ name: id })) }],
  });
}

/**
 * Refuses a request that needs more than a frontend can do. Clients name what they need in `frontend.caps`; a
 * frontend's image lists what it can do in the label `moby.buildkit.frontend.caps`, too.
 *
 * @throws BuildError `unimplemented` that names the capability.
 */
export function checkFrontendCaps(opts: ReadonlyMap<string, string>, supported: readonly string[]): void {
  for (const cap of (opts.get("frontend.caps") ?? "").split(",")) {
    const name = cap.split("+", 1)[0] ?? "";
    if (name === "" || supported.includes(name)) continue;
    throw new BuildError("unimplemented", `unsupported frontend capability ${name}`, {
      wire: [{ typeUrl: errorDetailTypes.frontendCap, value: new TextEncoder().encode(goJson({ name })) }],
    });
  }
}
