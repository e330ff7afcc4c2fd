/**
 * Evaluates one typed definition. This is a process of its own: `evaluate-definition.ts` starts it under Node's
 * permission model with an empty environment, gives it the file's text on standard input and reads the answer from
 * descriptor 3. It imports nothing but Node, so that it may be started without the right to read any other file.
 */
import { Buffer } from "node:buffer";
import { readFileSync, writeSync } from "node:fs";
import { registerHooks, stripTypeScriptTypes } from "node:module";
import { fileURLToPath } from "node:url";

/** What is to be evaluated. */
export interface DefinitionJob {
  /** `file:` URL of the definition; errors name it. */
  readonly url: string;
  readonly source: string;
  readonly typescript: boolean;
  /** Whether it may import files and read them; Node's permissions say which. */
  readonly mayRead: boolean;
  readonly mayConnect: boolean;
  readonly localPlatform: string;
  /** Values of variables, by name. */
  readonly variables: Readonly<Record<string, string>>;
}

/** What came of it. */
export type DefinitionAnswer =
  | { readonly config: unknown; readonly variables: readonly AskedVariable[] }
  | { readonly error: string; readonly stack: string };

/** A variable that the definition asked for. */
export interface AskedVariable {
  readonly name: string;
  readonly value: string | number | boolean | null;
  readonly description: string;
}

const LIBRARY = "@kiln/bake";
const LIBRARY_URL = "kiln:bake";
const LIBRARY_TEXT = "export const defineBake = (source) => source;";
const FILE_MODULES = ["node:fs", "node:fs/promises", "node:path", "node:url"];
/** What a definition finds besides the language itself. */
const WEB_GLOBALS =
  "console URL URLSearchParams TextEncoder TextDecoder structuredClone queueMicrotask atob btoa AbortController AbortSignal Event EventTarget DOMException setTimeout clearTimeout";
const LANGUAGE =
  "globalThis Infinity NaN undefined eval isFinite isNaN parseFloat parseInt decodeURI decodeURIComponent encodeURI encodeURIComponent escape unescape Object Function Boolean Symbol Error AggregateError EvalError RangeError ReferenceError SyntaxError TypeError URIError SuppressedError Number BigInt Math Date String RegExp Array Int8Array Uint8Array Uint8ClampedArray Int16Array Uint16Array Int32Array Uint32Array BigInt64Array BigUint64Array Float16Array Float32Array Float64Array Map Set WeakMap WeakSet WeakRef FinalizationRegistry ArrayBuffer SharedArrayBuffer DataView Atomics JSON Iterator Promise Proxy Reflect Intl Temporal DisposableStack AsyncDisposableStack";

/** Taken before the definition could change them. */
const stringify = JSON.stringify;
const own = Object.hasOwn;
const exit = process.exit.bind(process);

function answer(value: DefinitionAnswer): never {
  const bytes = Buffer.from(stringify(value));
  for (let at = 0; at < bytes.length; ) at += writeSync(3, bytes, at);
  return exit(0);
}

/** Imports: this definition, `@kiln/bake`, and with permission files and what is needed to read them. */
function guardImports(job: DefinitionJob): void {
  const refuse = (specifier: string): never => {
    const what = stringify(specifier);
    throw new Error(
      job.mayRead
        ? `import of ${what} is not allowed: a definition may import "${LIBRARY}", files, and ${FILE_MODULES.join(", ")}`
        : `import of ${what} is not allowed: a definition may import "${LIBRARY}" only, unless --allow definition.read=PATH is given`,
    );
  };
  registerHooks({
    resolve: (specifier, context, next) => {
      if (specifier === LIBRARY) return { url: LIBRARY_URL, format: "module", shortCircuit: true };
      if (specifier === job.url) return { url: job.url, shortCircuit: true };
      if (!job.mayRead) return refuse(specifier);
      if (specifier.startsWith("node:"))
        return FILE_MODULES.includes(specifier) ? next(specifier, context) : refuse(specifier);
      const found = next(specifier, context);
      return found.url.startsWith("file:") ? found : refuse(specifier);
    },
    load: (url, context, next) => {
      if (url === LIBRARY_URL) return { format: "module", source: LIBRARY_TEXT, shortCircuit: true };
      if (url === job.url) {
        const format = job.typescript ? "module-typescript" : "module";
        return { format, source: job.source, shortCircuit: true };
      }
      if (url.startsWith("node:")) return next(url, context);
      if (!/\.[cm]?[jt]s$/.test(url)) return next(url, context);
      const format = /ts$/.test(url) ? "module-typescript" : "module";
      return { format, source: readFileSync(fileURLToPath(url), "utf8"), shortCircuit: true };
    },
  });
}

/** A console whose every method writes a line to standard error, and that leads to no stream. */
function plainConsole(): Readonly<Record<string, (...values: readonly unknown[]) => void>> {
  const text = (value: unknown): string => {
    if (typeof value === "string") return value;
    if (value instanceof Error) return String(value.stack);
    try {
      return stringify(value) ?? String(value);
    } catch {
      return String(value);
    }
  };
  const print = (...values: readonly unknown[]): void => {
    writeSync(2, `${values.map(text).join(" ")}\n`);
  };
  return { log: print, info: print, debug: print, warn: print, error: print };
}

/**
 * Takes away everything global that a definition has no use for; `process` first of all. Node's `fetch` looks for
 * much of it, so with access to the network it stays; Node's permissions hold all the same.
 */
function guardGlobals(mayConnect: boolean): void {
  const kept = new Set(`${LANGUAGE} ${WEB_GLOBALS}`.split(" "));
  for (const name of mayConnect ? [] : Object.getOwnPropertyNames(globalThis)) {
    if (!kept.has(name)) Reflect.deleteProperty(globalThis, name);
  }
  Object.defineProperty(globalThis, "console", { value: plainConsole(), writable: true, configurable: true });
}

type Scalar = string | number | boolean;

function variableReader(job: DefinitionJob, asked: Map<string, AskedVariable>) {
  return (name: unknown, fallback?: unknown, description?: unknown): Scalar | undefined => {
    if (typeof name !== "string" || !/^[A-Za-z_][\w-]*$/.test(name))
      throw new TypeError(`invalid variable name ${stringify(name)}`);
    const given = own(job.variables, name) ? job.variables[name] : undefined;
    const value = given === undefined ? (fallback as Scalar | undefined) : converted(name, given, fallback);
    const text = typeof description === "string" ? description : "";
    asked.set(name, { name, value: value ?? null, description: text });
    return value;
  };
}

/** The text as its default's type wants it. */
function converted(name: string, text: string, fallback: unknown): Scalar {
  if (typeof fallback === "number") {
    const number = Number(text);
    if (text.trim() === "" || !Number.isFinite(number))
      throw new TypeError(`variable ${name}: ${stringify(text)} is not a number`);
    return number;
  }
  if (typeof fallback !== "boolean") return text;
  if (/^(?:1|t|T|TRUE|true|True)$/.test(text)) return true;
  if (/^(?:0|f|F|FALSE|false|False)$/.test(text)) return false;
  throw new TypeError(`variable ${name}: ${stringify(text)} is not a bool`);
}

async function evaluate(job: DefinitionJob): Promise<DefinitionAnswer> {
  guardImports(job);
  // Node's TypeScript reader starts with what is taken away next.
  stripTypeScriptTypes("");
  guardGlobals(job.mayConnect);
  const asked = new Map<string, AskedVariable>();
  const loaded = (await import(job.url)) as { readonly default?: unknown };
  const source = loaded.default;
  if (source === undefined)
    throw new Error("there is no default export: write `export default defineBake({ … })`");
  const input = { localPlatform: job.localPlatform, variable: variableReader(job, asked) };
  const config: unknown =
    typeof source === "function" ? await (source as (bake: typeof input) => unknown)(input) : source;
  // What JSON can't say (functions, dates, …) is gone or fails here and not later.
  const text = stringify(config);
  return {
    config: text === undefined ? null : (JSON.parse(text) as unknown),
    variables: [...asked.values()],
  };
}

async function main(): Promise<void> {
  const job = JSON.parse(readFileSync(0, "utf8")) as DefinitionJob;
  try {
    answer(await evaluate(job));
  } catch (error) {
    const isError = error instanceof Error;
    const message = isError ? error.message : `thrown: ${String(error)}`;
    answer({ error: message, stack: isError ? String(error.stack) : "" });
  }
}

void main();
