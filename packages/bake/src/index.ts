export type { Grants, Json, OverrideRecord, TargetField } from "./fields/field.ts";
export { type Group, Target } from "./fields/target.ts";
export { TARGET_FIELDS, targetFields } from "./fields/target-fields.ts";
export { DEFAULT_FILES, fileRelativePaths, filesFromEnvironment, readBakeFiles } from "./files.ts";
export type { BakeFlags } from "./flags.ts";
export type { BakeFile, BakeHost, HostStat } from "./host.ts";
export type { VariableInfo } from "./language/evaluator.ts";
export { warningTexts } from "./language/hints.ts";
export type { RemoteDefinition } from "./output/build-request.ts";
export type { EntitlementPrompt, Entitlements } from "./output/entitlements.ts";
export {
  type BakeDefinition,
  type BakeFailure,
  type BakeOptions,
  type BakeOutcome,
  type BakePlan,
  checkOptions,
  readBake,
  readDefinition,
} from "./read.ts";
export type * from "./request.ts";
export { type ConfigProblem, checkConfig, lineOfPath } from "./tools/check-config.ts";
export {
  type BakeConfig,
  type BakeFunction,
  type BakeInput,
  type DeclaredVariable,
  defineBake,
  definitionFile,
  type GroupDefinition,
  type TargetDefinition,
} from "./tools/define.ts";
export { type EjectFormat, ejectConfig, ejectPlan } from "./tools/eject.ts";
export { type GraphGroup, type GraphSource, type GraphTarget, graphSvg } from "./tools/graph.ts";
export { bakeSchema, referencePage } from "./tools/reference.ts";
export { definitionTypes, moduleDeclarations } from "./tools/types.ts";
