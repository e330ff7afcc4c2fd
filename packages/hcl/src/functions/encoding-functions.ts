import { decodeBase64, encodeBase64 } from "../crypto/base64.ts";
import { impliedJsonType, marshalJson, unmarshalJson } from "../cty/json.ts";
import { quote } from "../cty/text.ts";
import { isCollection, listType, objectType, stringType, type Type } from "../cty/type.ts";
import { listValue, objectValue, stringValue, unknownValue, type Value } from "../cty/value.ts";
import { FunctionError } from "../function.ts";
import { type FunctionTable, fn, open, text } from "./support.ts";

const encoder = new TextEncoder();
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function base64Decode(given: string): string {
  const bytes = decodeBase64(given);
  if (bytes === undefined) throw new FunctionError(`failed to decode base64 data '${given}'`);
  try {
    return strict.decode(bytes);
  } catch {
    throw new FunctionError("the result of decoding the the provided string is not valid UTF-8");
  }
}

/** As Go's `url.QueryEscape`. */
function queryEscape(given: string): string {
  let out = "";
  for (const byte of encoder.encode(given)) {
    const char = String.fromCharCode(byte);
    if (/[A-Za-z0-9\-_.~]/.test(char)) out += char;
    else out += byte === 32 ? "+" : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return out;
}

/** Records of RFC 4180 text, as Go's `encoding/csv` reads them. Empty lines are skipped. */
function csvRecords(given: string): string[][] {
  const records: string[][] = [];
  let line = 1;
  const fail = (why: string, at = line): FunctionError =>
    new FunctionError(`CSV parse error on line ${at}: ${why}`);
  for (let at = 0; at < given.length; ) {
    const newline = /\r?\n/y;
    newline.lastIndex = at;
    if (newline.test(given)) {
      at = newline.lastIndex;
      line++;
      continue;
    }
    const record: string[] = [];
    const start = line;
    for (let more = true; more; ) {
      let field = "";
      if (given.charAt(at) === '"') {
        at++;
        for (;;) {
          const close = given.indexOf('"', at);
          if (close < 0) throw fail('extraneous or missing " in quoted-field', start);
          field += given.slice(at, close);
          at = close + 1;
          if (given.charAt(at) !== '"') break;
          field += '"';
          at++;
        }
        line += field.split("\n").length - 1;
        field = field.replaceAll("\r\n", "\n");
        if (at < given.length && !/^(?:,|\r?\n)/.test(given.slice(at, at + 2))) {
          throw fail('extraneous or missing " in quoted-field');
        }
      } else {
        const end = /,|\r?\n|$/g;
        end.lastIndex = at;
        const stop = end.exec(given)?.index ?? given.length;
        field = given.slice(at, stop);
        if (field.includes('"')) throw fail('bare " in non-quoted-field');
        at = stop;
      }
      record.push(field);
      more = given.charAt(at) === ",";
      if (more) at++;
    }
    records.push(record);
    if (records[0]!.length !== record.length) throw fail("wrong number of fields", start);
    if (given.charAt(at) === "\r") at++;
    if (given.charAt(at) === "\n") {
      at++;
      line++;
    }
  }
  return records;
}

function csvType(args: readonly Value[]): Type {
  const given = args[0]!.string;
  const first = csvRecords(given.split(/\n(?=(?:[^"]*"[^"]*")*[^"]*$)/)[0] ?? "")[0];
  if (first === undefined) throw new FunctionError("missing header line");
  const attrs = new Map<string, Type>();
  for (const name of first) {
    if (attrs.has(name)) throw new FunctionError(`duplicate column name ${quote(name)}`);
    attrs.set(name, stringType);
  }
  return listType(objectType(attrs));
}

function csvDecode(args: readonly Value[], type: Type): Value {
  const [headers = [], ...rows] = csvRecords(args[0]!.string);
  const values = rows.map((row) =>
    objectValue(new Map(headers.map((name, i) => [name, stringValue(row[i] ?? "")]))),
  );
  return listValue(values, isCollection(type) ? type.elem : type);
}

/** Encodings. */
export const encodingFunctions: FunctionTable = {
  base64encode: fn("Encodes a string to a base64 sequence.", [text("str")], stringType, ([given]) =>
    stringValue(encodeBase64(encoder.encode(given!.string))),
  ),
  base64decode: fn("Decodes a string containing a base64 sequence.", [text("str")], stringType, ([given]) =>
    stringValue(base64Decode(given!.string)),
  ),
  urlencode: fn("Applies URL encoding to a given string.", [text("str")], stringType, ([given]) =>
    stringValue(queryEscape(given!.string)),
  ),
  jsonencode: fn(
    "Returns a string containing a JSON representation of the given value.",
    [open("val")],
    stringType,
    ([value]) => {
      if (!value!.isWhollyKnown) return unknownValue(stringType);
      return stringValue(value!.isNull ? "null" : marshalJson(value!, value!.type));
    },
  ),
  jsondecode: fn(
    "Parses the given string as JSON and returns a value corresponding to what the JSON document describes.",
    [text("str")],
    (args) => impliedJsonType(args[0]!.string),
    ([given], type) => unmarshalJson(given!.string, type),
  ),
  csvdecode: fn(
    "Parses the given string as Comma Separated Values (as defined by RFC 4180) and returns a map of objects representing the table of data, using the first row as a header row to define the object attributes.",
    [text("str")],
    csvType,
    csvDecode,
  ),
};
