export type { Attribute, Block, Body, BodyContent, BodySchema, HclFile } from "./body.ts";
export { ConversionError, convert, getConversion, mismatchMessage, unify } from "./cty/convert.ts";
export { impliedJsonType, JsonError, marshalJson, marshalType, unmarshalJson } from "./cty/json.ts";
export { Num } from "./cty/number.ts";
export { compareStrings, jsonString, quote, sortedKeys } from "./cty/text.ts";
export {
  boolType,
  type CollectionType,
  conformanceError,
  dynamicType,
  friendlyName,
  hasDynamic,
  isCollection,
  isPrimitive,
  listType,
  mapType,
  numberType,
  type ObjectType,
  objectType,
  setType,
  stringType,
  type TupleType,
  type Type,
  tupleType,
  typesEqual,
} from "./cty/type.ts";
export {
  boolValue,
  equals,
  intValue,
  listValue,
  mapValue,
  nullDynamic,
  nullValue,
  numberValue,
  objectValue,
  setValue,
  stringValue,
  tupleValue,
  unknownDynamic,
  unknownValue,
  Value,
} from "./cty/value.ts";
export {
  type Diagnostic,
  DiagnosticsError,
  didYouMean,
  errorAt,
  formatDiagnostic,
  formatDiagnostics,
  formatExcerpt,
  formatRange,
  hasErrors,
  INITIAL_POS,
  type Pos,
  type Range,
  suggestName,
} from "./diagnostics.ts";
export {
  constantExpression,
  type EvalContext,
  type Expression,
  expressionKeyword,
  expressionList,
  type KeyValuePair,
  type StaticCall,
  type Traversal,
  type TraversalStep,
} from "./expression.ts";
export { ArgumentError, callFunction, FunctionError, type HclFunction, type Parameter } from "./function.ts";
export { standardFunctions } from "./functions/standard.ts";
export { cleanPath } from "./functions/string-functions.ts";
export type { FunctionHost } from "./functions/support.ts";
export { parseHclJson } from "./json/json-body.ts";
export { MergedBody } from "./merged-body.ts";
export {
  decodeSource,
  type Parsed,
  parseExpression,
  parseHcl,
  parseTemplate,
  parseTraversal,
} from "./parse.ts";
export { typeConstraint } from "./type-expression.ts";
export { WorkLimitError, withWorkLimit } from "./work.ts";
