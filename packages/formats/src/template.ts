import { BuildError, errorMessage } from "@kiln/base";
import { goJson } from "./go-json.ts";
import { quoteGo } from "./quote.ts";
import { formatValue, sprintf, typeName } from "./sprintf.ts";
import { type Node, type Operand, type Pipe, parseNodes } from "./template-parse.ts";

/** Functions that a template may call, by name. They may throw; the text becomes part of the error. */
export type TemplateFunctions = Readonly<Record<string, (...args: never[]) => unknown>>;

/** What a template can be given. */
export interface TemplateOptions {
  /** Stands in error texts. Default "". */
  readonly name?: string;
  /** More functions, or others in place of the built-in ones. */
  readonly functions?: TemplateFunctions;
}

/** A parsed template. */
export interface Template {
  /** Text of the template for `data`; throws `invalid_argument` when a field is missing or a call fails. */
  run(data: unknown): string;
}

const MAX_OUTPUT_CHARS = 64 * 1024 * 1024;
const MAX_CALL_DEPTH = 100;

/**
 * Parses a Go text/template: text, `{{pipeline}}`, variables, `if`, `with`, `range` with `else`, `break`,
 * `continue`, `define`, `block`, `template`, comments and trim marks; Go's built-in functions and those of
 * Docker's `--format` (`json`, `split`, `join`, `title`, `lower`, `upper`, `pad`, `truncate`).
 *
 * Objects stand for Go structs (an unknown field is an error), `Map`s for Go maps (a missing key prints
 * `<no value>`). A function found as a field is a method. Only own properties and class members can be read.
 */
export function parseTemplate(source: string, options: TemplateOptions = {}): Template {
  const name = options.name ?? "";
  const functions = new Map<string, (...args: never[]) => unknown>([
    ...Object.entries(builtins),
    ...Object.entries(options.functions ?? {}),
  ]);
  const parsed = parseNodes(source, name, new Set(functions.keys()));
  return {
    run(data) {
      const run = new Run(name, functions, parsed.defined);
      run.body(parsed.main, data, new Map([["$", data]]));
      return run.output.join("");
    },
  };
}

type Variables = Map<string, unknown>;
type Flow = "next" | "break" | "continue";

class Run {
  readonly output: string[] = [];
  readonly #name: string;
  readonly #functions: ReadonlyMap<string, (...args: never[]) => unknown>;
  readonly #defined: ReadonlyMap<string, readonly Node[]>;
  #chars = 0;
  #depth = 0;
  #source = "";

  constructor(
    name: string,
    functions: ReadonlyMap<string, (...args: never[]) => unknown>,
    defined: ReadonlyMap<string, readonly Node[]>,
  ) {
    this.#name = name;
    this.#functions = functions;
    this.#defined = defined;
  }

  #error(message: string): BuildError {
    return new BuildError(
      "invalid_argument",
      `template: ${this.#name}: executing ${quoteGo(this.#name)} at <${this.#source}>: ${message}`,
    );
  }

  #write(text: string): void {
    this.#chars += text.length;
    if (this.#chars > MAX_OUTPUT_CHARS) throw this.#error(`output exceeds ${MAX_OUTPUT_CHARS} characters`);
    this.output.push(text);
  }

  body(nodes: readonly Node[], dot: unknown, outer: Variables): Flow {
    const variables = new Map([...outer].map(([name, value]): [string, unknown] => [name, asCell(value)]));
    for (const node of nodes) {
      const flow = this.#node(node, dot, variables);
      if (flow !== "next") return flow;
    }
    return "next";
  }

  #node(node: Node, dot: unknown, variables: Variables): Flow {
    switch (node.kind) {
      case "text":
        this.#write(node.text);
        return "next";
      case "action": {
        this.#source = node.source;
        const value = this.#pipe(node.pipe, dot, variables);
        if (node.pipe.variables.length === 0) this.#write(formatValue(value));
        return "next";
      }
      case "if":
      case "with": {
        this.#source = node.source;
        const inner = new Map(variables);
        const value = this.#pipe(node.pipe, dot, inner);
        if (!isTrue(value)) return this.body(node.otherwise, dot, variables);
        return this.body(node.body, node.kind === "with" ? value : dot, inner);
      }
      case "range":
        return this.#range(node, dot, variables);
      case "template":
        this.#call(node.name, node.pipe === undefined ? undefined : this.#pipe(node.pipe, dot, variables));
        return "next";
      default:
        return node.kind;
    }
  }

  #call(name: string, data: unknown): void {
    const nodes = this.#defined.get(name);
    if (!nodes) throw this.#error(`template ${quoteGo(name)} not defined`);
    if (++this.#depth > MAX_CALL_DEPTH)
      throw this.#error(`exceeded maximum template depth (${MAX_CALL_DEPTH})`);
    this.body(nodes, data, new Map([["$", data]]));
    this.#depth--;
  }

  #range(node: Extract<Node, { kind: "if" | "with" | "range" }>, dot: unknown, variables: Variables): Flow {
    this.#source = node.source;
    const value = this.#pipe({ ...node.pipe, variables: [] }, dot, variables);
    const entries = entriesOf(value);
    if (!entries) throw this.#error(`range can't iterate over ${formatValue(value)}`);
    let any = false;
    for (const [key, item] of entries) {
      any = true;
      const inner = new Map(variables);
      const [first, second] = node.pipe.variables;
      if (second !== undefined) {
        this.#assign(first!, key, node.pipe.declares, inner);
        this.#assign(second, item, node.pipe.declares, inner);
      } else if (first !== undefined) this.#assign(first, item, node.pipe.declares, inner);
      if (this.body(node.body, item, inner) === "break") break;
    }
    return any ? "next" : this.body(node.otherwise, dot, variables);
  }

  #assign(name: string, value: unknown, declares: boolean, variables: Variables): void {
    if (declares) variables.set(name, new Cell(value));
    else {
      const cell = variables.get(name);
      if (!(cell instanceof Cell)) throw this.#error(`undefined variable ${quoteGo(name)}`);
      cell.value = value;
    }
  }

  #pipe(pipe: Pipe, dot: unknown, variables: Variables): unknown {
    let value: unknown;
    for (const [i, command] of pipe.commands.entries()) {
      value = this.#command(command, dot, { variables, final: i > 0 ? [value] : [] });
    }
    for (const name of pipe.variables) this.#assign(name, value, pipe.declares, variables);
    return value;
  }

  #command(
    command: readonly Operand[],
    dot: unknown,
    env: { readonly variables: Variables; readonly final: readonly unknown[] },
  ): unknown {
    const [head, ...rest] = command;
    const args = (): unknown[] => [
      ...rest.map((operand) => this.#operand(operand, dot, env.variables, [])),
      ...env.final,
    ];
    if (head!.base.kind === "function") {
      const { name } = head!.base;
      if (name === "and" || name === "or") return this.#shortCircuit(name, rest, dot, env);
      return this.#invoke(name, this.#functions.get(name)!, args());
    }
    if (head!.fields.length === 0 && (rest.length > 0 || env.final.length > 0)) {
      throw this.#error("can't give argument to non-function");
    }
    return this.#operand(head!, dot, env.variables, args());
  }

  #shortCircuit(
    name: "and" | "or",
    operands: readonly Operand[],
    dot: unknown,
    env: { readonly variables: Variables; readonly final: readonly unknown[] },
  ): unknown {
    let value: unknown;
    for (const operand of operands) {
      value = this.#operand(operand, dot, env.variables, []);
      if (isTrue(value) === (name === "or")) return value;
    }
    return env.final.length > 0 ? env.final[0] : value;
  }

  #invoke(name: string, fn: (...args: never[]) => unknown, args: readonly unknown[]): unknown {
    try {
      return fn(...(args as never[]));
    } catch (error) {
      throw this.#error(`error calling ${name}: ${errorMessage(error)}`);
    }
  }

  #operand(operand: Operand, dot: unknown, variables: Variables, args: readonly unknown[]): unknown {
    const { base, fields } = operand;
    let value: unknown;
    switch (base.kind) {
      case "dot":
        value = dot;
        break;
      case "variable": {
        if (!variables.has(base.name)) throw this.#error(`undefined variable ${quoteGo(base.name)}`);
        value = fromCell(variables.get(base.name));
        break;
      }
      case "constant":
        return base.value;
      case "pipe":
        value = this.#pipe(base.pipe, dot, variables);
        break;
      case "function":
        return this.#invoke(base.name, this.#functions.get(base.name)!, []);
    }
    for (const [i, field] of fields.entries()) {
      value = this.#field(value, field, i === fields.length - 1 ? args : []);
    }
    return value;
  }

  #field(value: unknown, name: string, args: readonly unknown[]): unknown {
    if (value === null || value === undefined) {
      throw this.#error(`nil data; no entry for key ${quoteGo(name)}`);
    }
    if (value instanceof Map) return value.get(name);
    const found = typeof value === "object" ? memberOf(value, name) : undefined;
    if (!found) throw this.#error(`can't evaluate field ${name} in type ${typeName(value)}`);
    const member = found.value;
    if (typeof member === "function") {
      return this.#invoke(name, member.bind(value) as (...a: never[]) => unknown, args);
    }
    if (args.length > 0) throw this.#error(`${name} has arguments but cannot be invoked as function`);
    return member;
  }
}

class Cell {
  value: unknown;
  constructor(value: unknown) {
    this.value = value;
  }
}

function asCell(value: unknown): Cell {
  return value instanceof Cell ? value : new Cell(value);
}

function fromCell(value: unknown): unknown {
  return value instanceof Cell ? value.value : value;
}

/** An own property or a member of the object's class, never one of `Object.prototype`. */
function memberOf(value: object, name: string): { readonly value: unknown } | undefined {
  if (name === "constructor" || name === "__proto__") return undefined;
  for (let at: object | null = value; at && at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    if (Object.hasOwn(at, name)) return { value: Reflect.get(value, name, value) };
  }
  return undefined;
}

function isTrue(value: unknown): boolean {
  if (value === null || value === undefined || value === false || value === 0 || value === 0n) return false;
  if (typeof value === "string" || Array.isArray(value) || value instanceof Uint8Array)
    return value.length > 0;
  return value instanceof Map ? value.size > 0 : true;
}

function entriesOf(value: unknown): Iterable<[unknown, unknown]> | undefined {
  if (value === null || value === undefined) return [];
  if (Array.isArray(value)) return value.entries();
  if (value instanceof Map) return [...value].sort(([a], [b]) => (String(a) < String(b) ? -1 : 1));
  if (typeof value === "number" && Number.isInteger(value)) {
    return Array.from({ length: Math.max(0, value) }, (_, i): [unknown, unknown] => [i, i]);
  }
  return undefined;
}

function compare(a: unknown, b: unknown): number {
  const numeric = (v: unknown): v is number | bigint => typeof v === "number" || typeof v === "bigint";
  if (numeric(a) && numeric(b)) return a < b ? -1 : a > b ? 1 : 0;
  if (typeof a === "string" && typeof b === "string") return a < b ? -1 : a > b ? 1 : 0;
  throw new Error("incompatible types for comparison");
}

function equals(a: unknown, b: unknown): boolean {
  if (typeof a === "object" && a !== null) throw new Error("non-comparable type");
  if (typeof a === "bigint" || typeof b === "bigint") return String(a) === String(b);
  if (a !== null && b !== null && typeof a !== typeof b) throw new Error("incompatible types for comparison");
  return a === b;
}

function index(value: unknown, ...keys: readonly unknown[]): unknown {
  let at = value;
  for (const key of keys) {
    if (at instanceof Map) at = at.get(key) ?? undefined;
    else if (Array.isArray(at) || typeof at === "string") {
      const i = Number(key);
      if (!Number.isInteger(i) || i < 0 || i >= at.length)
        throw new Error(`index out of range: ${formatValue(key)}`);
      at = typeof at === "string" ? at.charCodeAt(i) : at[i];
    } else if (at === null || at === undefined) throw new Error("index of untyped nil");
    else if (typeof at === "object" && typeof key === "string") at = memberOf(at, key)?.value;
    else throw new Error(`can't index item of type ${typeName(at)}`);
  }
  return at;
}

function lengthOf(value: unknown): number {
  if (value instanceof Map) return value.size;
  if (typeof value === "string") return new TextEncoder().encode(value).length;
  if (Array.isArray(value) || value instanceof Uint8Array) return value.length;
  throw new Error(`len of type ${typeName(value)}`);
}

const HTML: ReadonlyMap<string, string> = new Map([
  ["&", "&amp;"],
  ["<", "&lt;"],
  [">", "&gt;"],
  ['"', "&#34;"],
  ["'", "&#39;"],
]);

/** `fmt.Sprint`: a space between operands when neither is a string. */
function sprint(args: readonly unknown[]): string {
  return args
    .map((arg, i) =>
      i > 0 && typeof arg !== "string" && typeof args[i - 1] !== "string"
        ? ` ${formatValue(arg)}`
        : formatValue(arg),
    )
    .join("");
}

const builtins: TemplateFunctions = {
  and: () => undefined,
  or: () => undefined,
  not: (value: unknown) => !isTrue(value),
  eq: (a: unknown, ...others: unknown[]) => {
    if (others.length === 0) throw new Error("missing argument for comparison");
    return others.some((b) => equals(a, b));
  },
  ne: (a: unknown, b: unknown) => !equals(a, b),
  lt: (a: unknown, b: unknown) => compare(a, b) < 0,
  le: (a: unknown, b: unknown) => compare(a, b) <= 0,
  gt: (a: unknown, b: unknown) => compare(a, b) > 0,
  ge: (a: unknown, b: unknown) => compare(a, b) >= 0,
  len: lengthOf,
  index,
  slice: (value: string | unknown[], from = 0, to = value.length) => {
    if (from < 0 || to > value.length || from > to) throw new Error(`index out of range: ${to}`);
    return value.slice(from, to);
  },
  print: (...args: unknown[]) => sprint(args),
  println: (...args: unknown[]) => `${args.map(formatValue).join(" ")}\n`,
  printf: (format: string, ...args: unknown[]) => sprintf(format, ...args),
  html: (...args: unknown[]) => sprint(args).replace(/[&<>"']/g, (c) => HTML.get(c)!),
  js: (...args: unknown[]) =>
    sprint(args).replace(
      /[\\'"<>&=\n\r]/g,
      (c) => `\\u${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}`,
    ),
  urlquery: (...args: unknown[]) => encodeURIComponent(sprint(args)).replaceAll("%20", "+"),
  call: (fn: unknown, ...args: unknown[]) => {
    if (typeof fn !== "function") throw new Error(`non-function of type ${typeName(fn)}`);
    return fn(...args);
  },
  json: (value: unknown) => goJson(value, { escapeHtml: false }),
  split: (text: string, separator: string) => text.split(separator),
  join: (items: readonly unknown[], separator: string) => items.map(formatValue).join(separator),
  title: (text: string) => text.replace(/(^|[\s-])(\p{Ll})/gu, (_, before, c) => before + c.toUpperCase()),
  lower: (text: string) => text.toLowerCase(),
  upper: (text: string) => text.toUpperCase(),
  pad: (text: string, before: number, after: number) =>
    text === "" ? text : " ".repeat(before) + text + " ".repeat(after),
  truncate: (text: string, length: number) => Array.from(text).slice(0, length).join(""),
};
