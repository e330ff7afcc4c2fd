import { errorDetailTypes } from "@kiln/api";
import { BuildError } from "@kiln/base";
import { base64FromBytes, goJson } from "@kiln/formats";
import type { Range, SourceMap } from "@kiln/llb";

/** An error at a place in the user's file, as BuildKit's clients show it: with an excerpt. */
export function sourceError(message: string, source: SourceMap, ranges: readonly Range[]): BuildError {
  const { filename, language, data } = source;
  const info = { filename, data: base64FromBytes(data), language };
  const value = new TextEncoder().encode(goJson({ info, ranges: ranges.map(rangeJson) }));
  return new BuildError("unknown", message, { wire: [{ typeUrl: errorDetailTypes.source, value }] });
}

function rangeJson({ start, end }: Range): object {
  return {
    start: { line: start.line, character: start.character },
    end: { line: end.line, character: end.character },
  };
}
