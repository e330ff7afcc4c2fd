import { BuildError, wrapError } from "@kiln/base";

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

/** True for what counts as seconds since the epoch: a whole number, as Go reads it, that fits JavaScript's. */
export function isEpoch(value: string): boolean {
  return /^[+-]?\d{1,32}$/.test(value) && Number.isSafeInteger(Number(value));
}

/** Seconds since the epoch; undefined for "". */
export function epochAttr(key: string, value: string): number | undefined {
  if (value === "") return undefined;
  if (!isEpoch(value)) {
    const fault = /^[+-]?\d+$/.test(value) ? "value out of range" : "invalid syntax";
    const cause = `strconv.ParseInt: parsing ${JSON.stringify(value)}: ${fault}`;
    throw new BuildError("invalid_argument", `invalid ${key}: ${cause}: ${cause}`);
  }
  return Number(value);
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
  const text = new TextDecoder().decode(value);
  try {
    return epochAttr("", text);
  } catch (error) {
    throw wrapError(error, `invalid SOURCE_DATE_EPOCH from frontend: ${JSON.stringify(text)}`);
  }
}
