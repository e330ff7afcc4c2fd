export {
  type Diagnostic,
  type LintOptions,
  lintDockerfile,
  type ParsedDockerfile,
  type ParseOptions,
  parseDockerfile,
} from "./api.ts";
export { type CheckOptions, checkDockerfile } from "./check.ts";
export { type CompiledDockerfile, type CompileOptions, compileDockerfile } from "./compile-simple.ts";
export { type Fix, type FixedDockerfile, type FixOptions, fixDockerfile } from "./fix/fix.ts";
export * from "./frontend/backend.ts";
export { buildDockerfile } from "./frontend/build.ts";
export { loadReplacedImage, type ReplacedImage } from "./frontend/named-frontend.ts";
export { printSource } from "./frontend/print-source.ts";
export {
  createScanner,
  type Scanner,
  type ScanTarget,
  SPDX_PREDICATE,
  sbomMetadata,
} from "./frontend/sbom.ts";
export { type GitRef, parseGitRef } from "./git.ts";
export * from "./instructions/types.ts";
export { type Rule, rules } from "./lint/rules.ts";
export { detectSyntax, type FoundDirective, findDirective } from "./syntax/directives.ts";
export type { Heredoc, InstructionNode } from "./syntax/node.ts";
