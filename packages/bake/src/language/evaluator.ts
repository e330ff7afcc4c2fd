import {
  type Attribute,
  type Block,
  type Body,
  ConversionError,
  convert,
  type Diagnostic,
  DiagnosticsError,
  dynamicType,
  type EvalContext,
  type Expression,
  expressionKeyword,
  friendlyName,
  type HclFunction,
  hasErrors,
  mapType,
  mapValue,
  nullValue,
  objectType,
  quote,
  type Range,
  standardFunctions,
  stringType,
  stringValue,
  type TraversalStep,
  type Type,
  typeConstraint,
  Value,
  withWorkLimit,
} from "@kiln/hcl";
import type { BakeHost } from "../host.ts";
import { fail } from "../problem.ts";
import { type BlockKind, type BlockOutput, decodeAttribute, fieldNames, outputValue } from "./block-kinds.ts";
import { type FunctionBlock, readDefinitions, type VariableBlock } from "./definitions.ts";
import { asDiagnostics, checked, UndefinedName } from "./evaluation-problems.ts";
import { matrixContexts, productName } from "./matrix.ts";
import { parameterNames, userFunction } from "./user-function.ts";
import { validateVariables } from "./validate-variables.ts";
import { displayValue, type OverrideText, overridden } from "./variable-values.ts";

/** One variable as `--list variables` shows it. */
export interface VariableInfo {
  readonly name: string;
  readonly description: string;
  /** "" when none was declared. */
  readonly type: string;
  /** `undefined`: null. */
  readonly value: string | undefined;
}

/** What evaluation needs besides the files. */
export interface EvaluateOptions {
  readonly host: BakeHost;
  /** Variables that the user can't set, such as `BAKE_LOCAL_PLATFORM`. */
  readonly builtins: ReadonlyMap<string, string>;
  /** A variable's value from `--var` or the environment. */
  readonly lookup: (name: string) => string | undefined;
}

/** What the blocks of a body evaluate to, in the order in which they are written. */
export interface Evaluated {
  readonly outputs: readonly BlockOutput[];
  /** For each target label the names of what its matrix produced. */
  readonly renamed: ReadonlyMap<string, readonly string[]>;
  readonly variables: readonly VariableInfo[];
}

const TARGET_NAME = /^[a-zA-Z0-9_-]+$/;
const JSON_SUFFIX = "_JSON";
const KINDS: readonly BlockKind[] = ["group", "target"];

/** Evaluates groups and targets with everything they refer to. Problems are thrown as {@link DiagnosticsError}. */
export function evaluate(body: Body, options: EvaluateOptions): Evaluated {
  return withWorkLimit(() => new Evaluator(options).run(body));
}

interface BlockState {
  readonly contexts: readonly EvalContext[];
  readonly outputs: readonly BlockOutput[];
  /** Attributes being evaluated, and evaluated ones, per context. */
  readonly inProgress: readonly Set<string>[];
  readonly done: readonly Set<string>[];
  names: readonly string[] | undefined;
}

class Evaluator {
  readonly #options: EvaluateOptions;
  readonly #variables = new Map<string, Value>();
  readonly #functions: Map<string, HclFunction>;
  readonly #root: EvalContext;
  #definitions = new Map<string, VariableBlock>();
  #functionBlocks = new Map<string, FunctionBlock>();
  #attributes = new Map<string, Attribute>();
  readonly #types = new Map<string, Type>();
  readonly #blocks = new Map<BlockKind, Map<string, Block[]>>(KINDS.map((kind) => [kind, new Map()]));
  readonly #states = new Map<Block, BlockState>();
  /** What references to blocks see: grows as blocks are evaluated. */
  readonly #live = new Map<
    BlockKind,
    { readonly types: Map<string, Type>; readonly members: Map<string, Value> }
  >();
  /** Names being resolved, per context. */
  readonly #resolving = new WeakMap<EvalContext, Set<string>>();
  #blocksReady = false;

  constructor(options: EvaluateOptions) {
    this.#options = options;
    this.#functions = standardFunctions(options.host);
    this.#root = { variables: this.#variables, functions: this.#functions };
  }

  run(body: Body): Evaluated {
    const rest = this.#readDefinitions(body);
    const schema = { attributes: [], blocks: KINDS.map((type) => ({ type, labels: ["name"] })) };
    const { content, rest: others } = checked((diagnostics) => rest.partialContent(schema, diagnostics));
    this.#readAttributes(others);
    for (const name of this.#options.builtins.keys()) this.#resolveValue(this.#root, name);
    const variables = this.#evaluateVariables();
    validateVariables(this.#definitions.values(), this.#root);
    this.#evaluateFunctions();
    this.#blocksReady = true;
    const renamed = this.#nameBlocks(content.blocks);
    const outputs = this.#evaluateBlocks(content.blocks);
    for (const [name, attribute] of this.#attributes) {
      this.#guard("Invalid attribute", attribute.range, () => this.#resolveValue(this.#root, name));
    }
    return { outputs, renamed, variables };
  }

  #guard<T>(summary: string, subject: Range | undefined, work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw new DiagnosticsError(asDiagnostics(error, summary, subject));
    }
  }

  #isReserved(name: string): boolean {
    return name === "group" || name === "target" || this.#options.builtins.has(name);
  }

  #readDefinitions(body: Body): Body {
    const { variables, functions, rest } = checked((diagnostics) => readDefinitions(body, diagnostics));
    const kept = <T extends { readonly name: string }>(items: readonly T[]): Map<string, T> =>
      new Map(items.filter(({ name }) => !this.#isReserved(name)).map((item) => [item.name, item]));
    this.#definitions = kept(variables);
    this.#functionBlocks = kept(functions);
    return rest;
  }

  #readAttributes(body: Body): void {
    const diagnostics: Diagnostic[] = [];
    const attributes = body.justAttributes(diagnostics);
    const harmless = (diagnostic: Diagnostic): boolean => {
      if (diagnostic.detail === "Blocks are not allowed here.") return true;
      const name = /^Argument "(.*?)" was already set at /.exec(diagnostic.detail)?.[1];
      return (
        name !== undefined && (this.#isReserved(name) || this.#definitions.has(name) || attributes.has(name))
      );
    };
    const serious = diagnostics.filter((diagnostic) => !harmless(diagnostic));
    if (serious.length > 0) throw new DiagnosticsError(serious);
    this.#attributes = new Map(
      [...attributes].filter(([name]) => !this.#isReserved(name) && name !== "function"),
    );
  }

  #evaluateVariables(): VariableInfo[] {
    const out: VariableInfo[] = [];
    for (const [name, { body, description }] of this.#definitions) {
      this.#guard("Invalid value", body.missingItemRange, () => this.#resolveValue(this.#root, name));
      const type = this.#types.get(name);
      const value = this.#variables.get(name) ?? nullValue(dynamicType);
      const shown = type === undefined ? "" : friendlyName(type, true);
      out.push({ name, description, type: shown, value: displayValue(value, type) });
    }
    return out;
  }

  #evaluateFunctions(): void {
    for (const [name, { params, block }] of this.#functionBlocks) {
      try {
        this.#resolveFunction(this.#root, name);
      } catch (error) {
        const subject = params?.range ?? block.labelRanges[0];
        const context = params?.range ?? block.defRange;
        throw new DiagnosticsError(asDiagnostics(error, "Invalid function", subject, context));
      }
    }
  }

  /** Marks a name as being resolved; false when it already is. */
  #enter(ctx: EvalContext, name: string): boolean {
    const names = this.#resolving.get(ctx) ?? new Set();
    this.#resolving.set(ctx, names);
    if (names.has(name)) return false;
    names.add(name);
    return true;
  }

  /** Evaluates what an expression refers to. With `lax`, undefined names are left for evaluation to complain about. */
  #loadDependencies(ctx: EvalContext, expr: Expression, lax: boolean, hidden?: ReadonlySet<string>): void {
    const attempt = (work: () => void): void => {
      try {
        work();
      } catch (error) {
        if (lax && error instanceof UndefinedName) return;
        throw new DiagnosticsError(asDiagnostics(error, "Invalid expression", expr.range));
      }
    };
    for (const name of expr.functionNames()) attempt(() => this.#resolveFunction(ctx, name));
    for (const traversal of expr.variables()) {
      const [root, ...steps] = traversal;
      if (root === undefined || root.kind === "index" || hidden?.has(root.name) === true) continue;
      const kind = KINDS.find((name) => name === root.name);
      if (kind !== undefined && this.#blocksReady) attempt(() => this.#resolveReference(kind, steps));
      else attempt(() => this.#resolveValue(ctx, root.name));
    }
  }

  #resolveReference(kind: BlockKind, steps: readonly TraversalStep[]): void {
    const [name, attribute] = steps;
    if (name === undefined) fail(`cannot access ${kind} as a variable`);
    if (name.kind !== "attr") fail(`cannot traverse ${kind} without attribute`);
    const only = attribute?.kind === "attr" ? [attribute.name] : undefined;
    for (const block of this.#blocks.get(kind)?.get(name.name) ?? []) this.#resolveBlock(block, kind, only);
  }

  #resolveFunction(ctx: EvalContext, name: string): void {
    if (this.#functions.has(name)) return;
    const block = this.#functionBlocks.get(name);
    if (block === undefined) throw new UndefinedName(`function ${quote(name)} does not exist: undefined`);
    if (!this.#enter(ctx, `function ${name}`)) fail(`function cycle not allowed for ${name}`);
    if (block.result === undefined) fail(`empty result not allowed for ${name}`);
    if (block.params === undefined) fail(`empty params not allowed for ${name}`);
    const { result } = block;
    const names = parameterNames(block.params, block.variadic);
    this.#loadDependencies(this.#root, result.expr, false, new Set(names.all));
    this.#functions.set(name, userFunction(names, result.expr, this.#root));
  }

  #resolveValue(given: EvalContext, name: string): void {
    if (this.#variables.has(name) || given.variables?.has(name) === true) return;
    if (!this.#enter(given, name)) fail(`variable cycle not allowed for ${name}`);
    const builtin = this.#options.builtins.get(name);
    if (builtin !== undefined) {
      this.#variables.set(name, stringValue(builtin));
      return;
    }
    const attribute = this.#attributes.get(name);
    const definition = this.#definitions.get(name);
    if (attribute !== undefined) {
      this.#variables.set(
        name,
        this.#variableValue(given, { name, source: attribute, type: undefined, definition }),
      );
      return;
    }
    if (definition === undefined)
      throw new UndefinedName(`variable ${quote(name)} does not exist: undefined`);
    const type = this.#declaredType(definition);
    if (type !== undefined) this.#types.set(name, type);
    this.#variables.set(
      name,
      this.#variableValue(this.#root, { name, source: definition.default, type, definition }),
    );
  }

  #declaredType({ type: expr }: VariableBlock): Type | undefined {
    const problems: Diagnostic[] = [];
    const type = typeConstraint(expr, problems);
    if (hasErrors(problems)) {
      const ignored: Diagnostic[] = [];
      const value = expr.value(undefined, ignored);
      if (!hasErrors(ignored) && value.isNull) return undefined;
      throw new DiagnosticsError(problems);
    }
    return type.kind === "dynamic" && expressionKeyword(expr) !== "any" ? undefined : type;
  }

  #variableValue(ctx: EvalContext, variable: VariableSource): Value {
    const { name, source, type, definition } = variable;
    const given = this.#override(name, type !== undefined);
    if (source === undefined && given === undefined)
      return type === undefined ? stringValue("") : nullValue(type);
    let value: Value | undefined;
    if (source !== undefined) {
      this.#loadDependencies(ctx, source.expr, true);
      const raw = checked((diagnostics) => source.expr.value(ctx, diagnostics));
      const wanted = type ?? dynamicType;
      try {
        value = convert(raw, wanted);
      } catch (error) {
        if (!(error instanceof ConversionError)) throw error;
        fail(`invalid type ${friendlyName(wanted)} for variable ${name} default value: ${error.message}`);
      }
    }
    if (given === undefined || definition === undefined) return value ?? nullValue(dynamicType);
    return overridden(name, given, type, value);
  }

  /** A value from outside for a variable, and whether it is JSON. */
  #override(name: string, preferJson: boolean): OverrideText | undefined {
    const plain = this.#options.lookup(name);
    if (plain === undefined || preferJson) {
      const other = name + JSON_SUFFIX;
      if (!this.#definitions.has(other) && !this.#options.builtins.has(other)) {
        const json = this.#options.lookup(other);
        if (json !== undefined) return { text: json, json: true };
      }
    }
    return plain === undefined ? undefined : { text: plain, json: false };
  }

  #nameBlocks(blocks: readonly Block[]): Map<string, string[]> {
    const renamed = new Map<string, string[]>();
    const found: [BlockKind, string, Block][] = [];
    for (const block of blocks) {
      const kind = block.type as BlockKind;
      const label = block.labels[0] ?? "";
      const names = this.#guard("Invalid name", block.labelRanges[0], () => this.#blockNames(block, kind));
      for (const name of names) {
        found.push([kind, name, block]);
        const key = `${kind} ${label}`;
        renamed.set(key, [...(renamed.get(key) ?? []), name]);
      }
    }
    for (const [kind, name, block] of found) {
      const byName = this.#blocks.get(kind)!;
      byName.set(name, [...(byName.get(name) ?? []), block]);
    }
    return new Map([...renamed].map(([key, names]) => [key.slice(key.indexOf(" ") + 1), names]));
  }

  #blockNames(block: Block, kind: BlockKind): readonly string[] {
    const state = this.#blockState(block, kind);
    if (state.names !== undefined) return state.names;
    const label = block.labels[0] ?? "";
    const names = state.contexts.map((ctx) => {
      checkName(label);
      const name = productName(block, kind, (expr) => {
        this.#loadDependencies(ctx, expr, true);
        return checked((diagnostics) => expr.value(ctx, diagnostics));
      });
      checkName(name);
      return name;
    });
    const twice = names.find((name, i) => names.indexOf(name) !== i);
    if (twice !== undefined) fail(`duplicate name ${quote(twice)}`);
    state.names = names;
    for (const [i, output] of state.outputs.entries()) output.name = names[i]!;
    return names;
  }

  #blockState(block: Block, kind: BlockKind): BlockState {
    const existing = this.#states.get(block);
    if (existing !== undefined) return existing;
    if (!this.#variables.has(kind)) this.#variables.set(kind, mapValue(new Map(), mapType(stringType)));
    const contexts = matrixContexts(block, kind, this.#root, (expr) => {
      this.#loadDependencies(this.#root, expr, true);
      return checked((diagnostics) => expr.value(this.#root, diagnostics));
    });
    const state: BlockState = {
      contexts,
      outputs: contexts.map(() => ({ kind, name: block.labels[0] ?? "", values: new Map(), block })),
      inProgress: contexts.map(() => new Set()),
      done: contexts.map(() => new Set()),
      names: undefined,
    };
    this.#states.set(block, state);
    return state;
  }

  /** Evaluates a block, or only some of its attributes. */
  #resolveBlock(block: Block, kind: BlockKind, only: readonly string[] | undefined): void {
    const state = this.#blockState(block, kind);
    for (const [i, ctx] of state.contexts.entries()) {
      const [done, inProgress, output] = [state.done[i]!, state.inProgress[i]!, state.outputs[i]!];
      const wanted = (only ?? fieldNames(kind)).filter((name) => !done.has(name));
      if (only !== undefined) {
        if (wanted.length === 0) return;
        for (const name of wanted) {
          if (inProgress.has(name)) fail(`reference cycle not allowed for ${kind}.${output.name}.${name}`);
          inProgress.add(name);
        }
      }
      this.#decode(
        block,
        output,
        ctx,
        wanted.filter((name) => fieldNames(kind).includes(name)),
      );
      for (const name of wanted) done.add(name);
      this.#publish(kind, output);
    }
  }

  #decode(block: Block, output: BlockOutput, ctx: EvalContext, names: readonly string[]): void {
    const required = output.kind === "group" ? ["targets"] : [];
    const attributes = names.map((name) => ({ name, required: required.includes(name) }));
    const problems: Diagnostic[] = [];
    const { content } = block.body.partialContent({ attributes, blocks: [] }, problems);
    if (hasErrors(problems)) throw new DiagnosticsError(problems);
    for (const { expr } of content.attributes.values()) this.#loadDependencies(ctx, expr, true);
    for (const [name, { expr }] of content.attributes)
      decodeAttribute(output, name, expr, { ctx, diagnostics: problems });
    if (hasErrors(problems)) throw new DiagnosticsError(problems);
  }

  /** Makes what is known of a block visible to references. */
  #publish(kind: BlockKind, output: BlockOutput): void {
    const live = this.#live.get(kind) ?? {
      types: new Map<string, Type>(),
      members: new Map<string, Value>(),
    };
    const value = outputValue(output);
    live.types.set(output.name, value.type);
    live.members.set(output.name, value);
    if (this.#live.has(kind)) return;
    this.#live.set(kind, live);
    this.#variables.set(kind, new Value(objectType(live.types), live.members));
  }

  #evaluateBlocks(blocks: readonly Block[]): BlockOutput[] {
    const diagnostics: Diagnostic[] = [];
    const outputs: BlockOutput[] = [];
    for (const block of blocks) {
      const kind = block.type as BlockKind;
      try {
        this.#resolveBlock(block, kind, undefined);
      } catch (error) {
        if (error instanceof DiagnosticsError) {
          diagnostics.push(...error.diagnostics);
          continue;
        }
        const problems = asDiagnostics(error, "Invalid block", block.labelRanges[0], block.defRange);
        throw new DiagnosticsError(problems);
      }
      outputs.push(...(this.#states.get(block)?.outputs ?? []));
    }
    if (hasErrors(diagnostics)) throw new DiagnosticsError(diagnostics);
    return outputs;
  }
}

interface VariableSource {
  readonly name: string;
  readonly source: Attribute | undefined;
  readonly type: Type | undefined;
  readonly definition: VariableBlock | undefined;
}

function checkName(name: string): void {
  if (!TARGET_NAME.test(name)) fail('only "[a-zA-Z0-9_-]+" are allowed');
}
