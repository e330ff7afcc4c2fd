import { quoteGo } from "@kiln/formats";

/** A check on Dockerfiles. */
export interface Rule {
  readonly name: string;
  readonly description: string;
  /** Empty for a rule without page. */
  readonly url: string;
  /** Off unless asked for. */
  readonly experimental: boolean;
}

const BASE_URL = "https://docs.docker.com/go/dockerfile/rule/";

function rule(name: string, description: string, options: { page?: string; experimental?: true } = {}): Rule {
  const page =
    options.page ?? name.replace(/(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])/g, "-").toLowerCase();
  return {
    name,
    description,
    url: page === "" ? "" : `${BASE_URL}${page}/`,
    experimental: options.experimental ?? false,
  };
}

/** All rules, with BuildKit's names and texts. */
export const rules = {
  stageNameCasing: rule("StageNameCasing", "Stage names should be lowercase"),
  fromAsCasing: rule("FromAsCasing", "The 'as' keyword should match the case of the 'from' keyword"),
  noEmptyContinuation: rule(
    "NoEmptyContinuation",
    "Empty continuation lines will become errors in a future release",
  ),
  consistentInstructionCasing: rule(
    "ConsistentInstructionCasing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
  ),
  duplicateStageName: rule("DuplicateStageName", "Stage names should be unique"),
  reservedStageName: rule("ReservedStageName", "Reserved words should not be used as stage names"),
  jsonArgsRecommended: rule(
    "JSONArgsRecommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
  ),
  maintainerDeprecated: rule(
    "MaintainerDeprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
  ),
  undefinedArgInFrom: rule("UndefinedArgInFrom", "FROM command must use declared ARGs"),
  workdirRelativePath: rule(
    "WorkdirRelativePath",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
  ),
  undefinedVar: rule("UndefinedVar", "Variables should be defined before their use"),
  multipleInstructionsDisallowed: rule(
    "MultipleInstructionsDisallowed",
    "Multiple instructions of the same type should not be used in the same stage",
  ),
  legacyKeyValueFormat: rule(
    "LegacyKeyValueFormat",
    "Legacy key/value format with whitespace separator should not be used",
  ),
  invalidBaseImagePlatform: rule(
    "InvalidBaseImagePlatform",
    "Base image platform does not match expected target platform",
    { page: "" },
  ),
  redundantTargetPlatform: rule(
    "RedundantTargetPlatform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
  ),
  secretsUsedInArgOrEnv: rule(
    "SecretsUsedInArgOrEnv",
    "Sensitive data should not be used in the ARG or ENV commands",
  ),
  invalidDefaultArgInFrom: rule(
    "InvalidDefaultArgInFrom",
    "Default value for global ARG results in an empty or invalid base image name",
  ),
  fromPlatformFlagConstDisallowed: rule(
    "FromPlatformFlagConstDisallowed",
    "FROM --platform flag should not use a constant value",
  ),
  copyIgnoredFile: rule("CopyIgnoredFile", "Attempting to Copy file that is excluded by .dockerignore"),
  invalidDefinitionDescription: rule(
    "InvalidDefinitionDescription",
    "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    { experimental: true },
  ),
  exposeProtoCasing: rule("ExposeProtoCasing", "Protocol in EXPOSE instruction should be lowercase"),
  exposeInvalidFormat: rule(
    "ExposeInvalidFormat",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
  ),
} as const satisfies Record<string, Rule>;

/** ` (did you mean X?)`, or nothing. */
function hint(suggestion: string | undefined, sigil = ""): string {
  return suggestion === undefined ? "" : ` (did you mean ${sigil}${suggestion}?)`;
}

/** Texts of the findings. */
export const texts = {
  stageNameCasing: (name: string) => `Stage name '${name}' should be lowercase`,
  fromAsCasing: (from: string, as: string) => `'${as}' and '${from}' keywords' casing do not match`,
  noEmptyContinuation: () => "Empty continuation line",
  consistentInstructionCasing: (keyword: string, casing: string) =>
    `Command '${keyword}' should match the case of the command majority (${casing})`,
  duplicateStageName: (name: string) => `Duplicate stage name ${quoteGo(name)}, stage names should be unique`,
  reservedStageName: (name: string) =>
    `Stage name should not use the same name as reserved stage ${quoteGo(name)}`,
  jsonArgsRecommended: (keyword: string) =>
    `JSON arguments recommended for ${keyword} to prevent unintended behavior related to OS signals`,
  maintainerDeprecated: () => "Maintainer instruction is deprecated in favor of using label",
  undefinedArgInFrom: (name: string, suggestion: string | undefined) =>
    `FROM argument '${name}' is not declared${hint(suggestion)}`,
  workdirRelativePath: (path: string) =>
    `Relative workdir ${quoteGo(path)} can have unexpected results if the base image changes`,
  undefinedVar: (name: string, suggestion: string | undefined) =>
    `Usage of undefined variable '$${name}'${hint(suggestion, "$")}`,
  multipleInstructionsDisallowed: (keyword: string) =>
    `Multiple ${keyword} instructions should not be used in the same stage because only the last one will be used`,
  legacyKeyValueFormat: (keyword: string) =>
    `"${keyword} key=value" should be used instead of legacy "${keyword} key value" format`,
  invalidBaseImagePlatform: (image: string, expected: string, actual: string) =>
    `Base image ${image} was pulled with platform ${quoteGo(actual)}, expected ${quoteGo(expected)} for current build`,
  redundantTargetPlatform: (platform: string) =>
    `Setting platform to predefined ${platform} in FROM is redundant as this is the default behavior`,
  secretsUsedInArgOrEnv: (keyword: string, key: string) =>
    `Do not use ARG or ENV instructions for sensitive data (${keyword} ${quoteGo(key)})`,
  invalidDefaultArgInFrom: (name: string) =>
    `Default value for ARG ${name} results in empty or invalid base image name`,
  fromPlatformFlagConstDisallowed: (platform: string) =>
    `FROM --platform flag should not use constant value ${quoteGo(platform)}`,
  copyIgnoredFile: (keyword: string, file: string) =>
    `Attempting to ${keyword} file ${quoteGo(file)} that is excluded by .dockerignore`,
  invalidDefinitionDescription: (keyword: string, name: string) =>
    `Comment for ${keyword} should follow the format: \`# ${name} <description>\``,
  exposeProtoCasing: (port: string) => `Defined protocol '${port}' in EXPOSE instruction should be lowercase`,
  exposeInvalidFormat: (port: string) =>
    `EXPOSE instruction should not define an IP address or host-port mapping, found '${port}'`,
} as const;
