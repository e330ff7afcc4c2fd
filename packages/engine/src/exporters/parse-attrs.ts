import { BuildError } from "@kiln/base";

/** Reads a boolean attribute as Go's `strconv.ParseBool` does; "" counts as true. */
export function boolAttr(key: string, value: string): boolean {
  if (value === "") return true;
  if (/^(?:1|t|T|true|TRUE|True)$/.test(value)) return true;
  if (/^(?:0|f|F|false|FALSE|False)$/.test(value)) return false;
  throw new BuildError(
    "invalid_argument",
    `non-bool value specified for ${key}: strconv.ParseBool: parsing ${JSON.stringify(value)}: invalid syntax`,
  );
}

/** Seconds since the epoch; undefined for "". */
export function epochAttr(key: string, value: string): number | undefined {
  if (value === "") return undefined;
  const seconds = Number(value);
  if (!/^[+-]?\d{1,16}$/.test(value) || !Number.isSafeInteger(seconds)) {
    throw new BuildError("invalid_argument", `invalid ${key === "" ? "" : `${key} `}timestamp ${value}`);
  }
  return seconds;
}

const EPOCH_KEY = "source.date.epoch";

/** The time that a frontend wants its result to have, in seconds; for one platform or for all. */
export function resultEpoch(
  metadata: ReadonlyMap<string, Uint8Array>,
  platformId: string | undefined,
): number | undefined {
  const value =
    (platformId === undefined ? undefined : metadata.get(`${EPOCH_KEY}/${platformId}`)) ??
    metadata.get(EPOCH_KEY);
  if (value === undefined) return undefined;
  return epochAttr("SOURCE_DATE_EPOCH from frontend:", new TextDecoder().decode(value));
}
