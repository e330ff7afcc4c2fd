import { BuildError } from "@kiln/base";

/** Go's `strconv.ParseBool`. */
export function parseGoBool(text: string): boolean {
  if (/^(1|t|T|TRUE|true|True)$/.test(text)) return true;
  if (/^(0|f|F|FALSE|false|False)$/.test(text)) return false;
  throw new BuildError(
    "invalid_argument",
    `strconv.ParseBool: parsing ${JSON.stringify(text)}: invalid syntax`,
  );
}
