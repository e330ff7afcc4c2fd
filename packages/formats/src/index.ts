export { type CsvOptions, csvFields, csvPairs, formatCsvFields } from "./csv.ts";
export { formatDuration, humanDuration, parseDuration, parseDurationMs } from "./duration.ts";
export {
  base64FromBytes,
  bytesFromBase64,
  compareBytes,
  type GoJsonOptions,
  goJson,
  quoteJson,
} from "./go-json.ts";
export { newId, newUuid, randomHex, useRandomBytes } from "./id.ts";
export { quoteGo } from "./quote.ts";
export { shellWords } from "./shell-words.ts";
export { bytesSize, humanSize, parseDecimalBytes, parseRamBytes } from "./size.ts";
export { formatG, formatValue, sprintf, typeName } from "./sprintf.ts";
export { levenshtein, suggest, withSuggestion } from "./suggest.ts";
export { parseTemplate, type Template, type TemplateFunctions, type TemplateOptions } from "./template.ts";
export { formatUlimit, parseUlimit, type Ulimit, ulimitResources } from "./ulimit.ts";
