import {
  boolType,
  ConversionError,
  convert,
  type Diagnostic,
  DiagnosticsError,
  type EvalContext,
  type Expression,
  errorAt,
  hasErrors,
  type Value,
} from "@kiln/hcl";
import type { VariableBlock } from "./definitions.ts";

/** Checks variables against their rules. All that fail are told together. @throws DiagnosticsError */
export function validateVariables(definitions: Iterable<VariableBlock>, scope: EvalContext): void {
  const diagnostics: Diagnostic[] = [];
  for (const { validations } of definitions) {
    for (const { condition, errorMessage: message } of validations) {
      const problems: Diagnostic[] = [];
      const complain = (summary: string, detail: string): void => {
        problems.push(errorAt(summary, detail, condition.range));
      };
      const result = condition.value(scope, problems);
      if (problems.length === 0 && result.isNull) {
        complain(
          "Invalid condition result",
          "Condition expression must return either true or false, not null.",
        );
      } else if (problems.length === 0) checkCondition(result, message, { scope, problems, complain });
      diagnostics.push(...problems);
    }
  }
  if (hasErrors(diagnostics)) throw new DiagnosticsError(diagnostics);
}

interface Check {
  readonly scope: EvalContext;
  readonly problems: Diagnostic[];
  readonly complain: (summary: string, detail: string) => void;
}

function checkCondition(result: Value, message: Expression, { scope, problems, complain }: Check): void {
  try {
    if (convert(result, boolType).isTrue) return;
  } catch (error) {
    if (!(error instanceof ConversionError)) throw error;
    complain("Invalid condition result", `Invalid condition result value: ${error.message}`);
    return;
  }
  const text = message.value(scope, problems);
  if (problems.length > 0) return;
  const usable = text.type.kind === "string" && !text.isNull && text.isKnown;
  complain(
    "Validation failed",
    usable ? text.string : "This check failed, but has an invalid error message.",
  );
}
