import {
  type Attribute,
  type Diagnostic,
  dynamicType,
  type EvalContext,
  type Expression,
  errorAt,
  expressionKeyword,
  expressionList,
  FunctionError,
  formatDiagnostics,
  type HclFunction,
  hasErrors,
  type Range,
  tupleValue,
  type Value,
} from "@kiln/hcl";
import { checked } from "./evaluation-problems.ts";

/** Names of a function's parameters. */
export interface ParameterNames {
  readonly fixed: readonly string[];
  readonly rest: string | undefined;
  readonly all: readonly string[];
}

/** The names in `params` and `variadic_params`. @throws DiagnosticsError */
export function parameterNames(params: Attribute, variadic: Attribute | undefined): ParameterNames {
  return checked((diagnostics) => {
    const complain = (subject: Range): void => {
      diagnostics.push(
        errorAt("Invalid param element", "Each parameter name must be an identifier.", subject),
      );
    };
    const fixed = (expressionList(params.expr, diagnostics) ?? []).map((param) => {
      const name = expressionKeyword(param);
      if (name === "") complain(param.range);
      return name;
    });
    const rest = variadic === undefined ? undefined : expressionKeyword(variadic.expr);
    if (rest === "" && variadic !== undefined) complain(variadic.range);
    return { fixed, rest, all: rest === undefined ? fixed : [...fixed, rest] };
  });
}

/** A function that evaluates `result` with its arguments in scope. */
export function userFunction(
  { fixed: params, rest }: ParameterNames,
  result: Expression,
  scope: EvalContext,
): HclFunction {
  const call = (args: readonly Value[]): Value => {
    const variables = new Map(params.map((name, i) => [name, args[i]!]));
    if (rest !== undefined) variables.set(rest, tupleValue(args.slice(params.length)));
    const problems: Diagnostic[] = [];
    const value = result.value({ variables, parent: scope }, problems);
    if (hasErrors(problems)) throw new FunctionError(formatDiagnostics(problems));
    return value;
  };
  return {
    description: "",
    params: params.map((name) => ({ name, type: dynamicType })),
    ...(rest === undefined ? {} : { variadic: { name: rest, type: dynamicType } }),
    returns: dynamicType,
    call,
  };
}
