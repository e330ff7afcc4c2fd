import { errorMessage, isBuildError } from "@kiln/base";
import { csvFields } from "@kiln/formats";
import {
  boolValue,
  ConversionError,
  convert,
  friendlyName,
  isPrimitive,
  JsonError,
  listValue,
  mapValue,
  marshalJson,
  Num,
  numberValue,
  quote,
  setValue,
  stringType,
  stringValue,
  type Type,
  tupleValue,
  unmarshalJson,
  type Value,
} from "@kiln/hcl";
import { fail, requireBool, within } from "../problem.ts";

/** A text from the environment as a primitive of the wanted type. */
export function primitiveFromText(name: string, text: string, type: Type): Value {
  switch (type.kind) {
    case "string":
      return stringValue(text);
    case "bool":
      return boolValue(within(`failed to parse ${name} as bool`, () => requireBool(text)));
    case "number":
      return numberValue(
        Num.fromFloat(within(`failed to parse ${name} as number`, () => parseFloatText(text))),
      );
    default:
      return fail(`${name} of type ${friendlyName(type)} is not a primitive`);
  }
}

/** As Go's `strconv.ParseFloat`, without infinities. */
function parseFloatText(text: string): number {
  if (/^[+-]?(?:inf|infinity|nan)$/i.test(text)) return fail("invalid number value");
  const syntax = /^[+-]?(?:\d+(?:_?\d)*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/.test(text) && !text.includes("_");
  const hexadecimal = /^[+-]?0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?\d+$/.test(text);
  if (!syntax && !hexadecimal) return fail(`strconv.ParseFloat: parsing ${quote(text)}: invalid syntax`);
  const value = hexadecimal ? hexFloat(text) : Number(text);
  if (!Number.isFinite(value)) return fail(`strconv.ParseFloat: parsing ${quote(text)}: value out of range`);
  return value;
}

function hexFloat(text: string): number {
  const match = /^([+-]?)0x([0-9a-f]*)\.?([0-9a-f]*)p([+-]?\d+)$/i.exec(text);
  const digits = (match?.[2] ?? "") + (match?.[3] ?? "");
  const value =
    Number(BigInt(`0x${digits || "0"}`)) * 2 ** (Number(match?.[4] ?? "0") - 4 * (match?.[3] ?? "").length);
  return match?.[1] === "-" ? -value : value;
}

/** True for types that a CSV text can be. */
export function isCsvType(type: Type): boolean {
  return ["list", "set", "tuple", "map"].includes(type.kind);
}

/** A CSV text from the environment as a list, set, tuple or map of primitives. */
export function valueFromCsv(name: string, text: string, type: Type): Value {
  const fields = within(`failed to parse ${text} as CSV`, () => csvFields(text));
  const unsupported = (): never => fail(`unsupported type ${friendlyName(type)} for CSV specification`);
  const element = (field: string, wanted: Type, preposition = "of"): Value => {
    if (!isPrimitive(wanted)) unsupported();
    return within(`failed to parse element ${preposition} type ${friendlyName(type)}`, () =>
      primitiveFromText(name, field, wanted),
    );
  };
  switch (type.kind) {
    case "list":
      return listValue(
        fields.map((field) => element(field, type.elem)),
        type.elem,
      );
    case "set":
      return setValue(
        fields.map((field) => element(field, type.elem)),
        type.elem,
      );
    case "tuple":
      if (type.elems.length !== fields.length) {
        fail(
          `${friendlyName(type)} expects ${type.elems.length} elements but only ${fields.length} provided`,
        );
      }
      return tupleValue(fields.map((field, i) => element(field, type.elems[i]!)));
    case "map": {
      const members = new Map<string, Value>();
      for (const field of fields) {
        const pair = within(`failed to parse ${field} as k/v for variable ${name}`, () => colonFields(field));
        const [key = "", value = ""] = pair;
        if (pair.length !== 2) fail(`expected one k/v pair but got ${pair.length} pieces from ${field}`);
        members.set(key, element(value, type.elem, "from"));
      }
      return mapValue(members, type.elem);
    }
    default:
      return unsupported();
  }
}

/** Fields separated by colons, with the quoting of CSV. */
function colonFields(text: string): string[] {
  const swap = (given: string): string => given.replace(/[,:]/g, (char) => (char === "," ? ":" : ","));
  try {
    return csvFields(swap(text)).map(swap);
  } catch (error) {
    return fail(errorMessage(error));
  }
}

/** How `--list variables` shows a value; `undefined` for null. */
export function displayValue(value: Value, type: Type | undefined): string | undefined {
  if (value.isNull) return undefined;
  try {
    if (type !== undefined) {
      const json = marshalJson(value, type);
      return type.kind === "string" ? json.replace(/^"+|"+$/g, "") : json;
    }
    if (isPrimitive(value.type)) return convert(value, stringType).string;
    return marshalJson(value, value.type);
  } catch {
    return "";
  }
}

/** A value that the environment or `--var` gives. */
export interface OverrideText {
  readonly text: string;
  readonly json: boolean;
}

/** The value of a variable that is given from outside. */
export function overridden(
  name: string,
  given: OverrideText,
  type: Type | undefined,
  value: Value | undefined,
): Value {
  const prefixed = (form: string, work: () => Value): Value => {
    try {
      return work();
    } catch (error) {
      if (error instanceof JsonError || error instanceof ConversionError || isBuildError(error)) {
        return fail(`failed to convert variable ${name} from ${form}: ${errorMessage(error)}`);
      }
      throw error;
    }
  };
  if (type !== undefined && given.json) return prefixed("JSON", () => unmarshalJson(given.text, type));
  if (type !== undefined && isCsvType(type))
    return prefixed("CSV", () => valueFromCsv(name, given.text, type));
  if (type !== undefined && isPrimitive(type)) return primitiveFromText(name, given.text, type);
  if (type !== undefined) return fail(`unsupported type ${friendlyName(type)} for variable ${name}`);
  if (value === undefined || value.type.kind === "dynamic") return stringValue(given.text);
  if (isPrimitive(value.type)) return primitiveFromText(name, given.text, value.type);
  return fail(`unsupported type ${friendlyName(value.type)} for variable ${name}`);
}
