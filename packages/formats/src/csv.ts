import { BuildError } from "@kiln/base";

/** Deviations from strict CSV. */
export interface CsvOptions {
  /** A quote may stand in an unquoted field, and a lone one in a quoted field. Default false. */
  readonly lazyQuotes?: boolean;
  /** White space at the start of a field is dropped. Default false. */
  readonly trimLeadingSpace?: boolean;
}

/**
 * Fields of one CSV record (go-csvvalue, Go's encoding/csv). Commas separate, double quotes enclose, `""` is
 * a quote. One line end at the end is ignored.
 *
 * Throws `invalid_argument`: `EOF` for an empty text, else encoding/csv's text with the byte column.
 */
export function csvFields(text: string, options: CsvOptions = {}): string[] {
  const line = text.replace(/\r?\n$/, "");
  if (line === "") throw new BuildError("invalid_argument", "EOF");
  const fields: string[] = [];
  let at = 0;
  for (;;) {
    if (options.trimLeadingSpace) while (at < line.length && /\s/.test(line[at]!)) at++;
    if (line[at] !== '"') {
      const comma = line.indexOf(",", at);
      const field = line.slice(at, comma < 0 ? undefined : comma);
      const quote = field.indexOf('"');
      if (quote >= 0 && !options.lazyQuotes) throw csvError(line, at + quote, 'bare " in non-quoted-field');
      fields.push(field);
      if (comma < 0) return fields;
      at = comma + 1;
      continue;
    }
    const end = quotedField(line, at + 1, options.lazyQuotes ?? false);
    fields.push(end.field);
    if (end.next < 0) return fields;
    at = end.next;
  }
}

/** Reads from behind the opening quote; `next` is the start of the next field, -1 at the end. */
function quotedField(line: string, start: number, lazy: boolean): { field: string; next: number } {
  let field = "";
  let at = start;
  for (;;) {
    const quote = line.indexOf('"', at);
    if (quote < 0) {
      if (!lazy) throw csvError(line, at, 'extraneous or missing " in quoted-field');
      return { field: field + line.slice(at), next: -1 };
    }
    field += line.slice(at, quote);
    at = quote + 1;
    const after = line[at];
    if (after === '"') {
      field += '"';
      at++;
    } else if (after === ",") return { field, next: at + 1 };
    else if (after === undefined) return { field, next: -1 };
    else if (lazy) field += '"';
    else throw csvError(line, quote, 'extraneous or missing " in quoted-field');
  }
}

function csvError(line: string, at: number, what: string): BuildError {
  const column = new TextEncoder().encode(line.slice(0, at)).length + 1;
  return new BuildError("invalid_argument", `parse error on line 1, column ${column}: ${what}`);
}

/** One CSV record as Go's `csv.Writer` writes it, without the line end. */
export function formatCsvFields(fields: readonly string[]): string {
  return fields
    .map((field) => {
      const quoted = field === "\\." || /[",\r\n]/.test(field) || /^\s/.test(field);
      return quoted ? `"${field.replaceAll('"', '""')}"` : field;
    })
    .join(",");
}

/** {@link csvFields} of `key=value` pairs, split at the first `=`; a field without one has no value. */
export function csvPairs(text: string): { readonly key: string; readonly value: string | undefined }[] {
  return csvFields(text).map((field) => {
    const equals = field.indexOf("=");
    if (equals < 0) return { key: field, value: undefined };
    return { key: field.slice(0, equals), value: field.slice(equals + 1) };
  });
}
