import { createHash } from "node:crypto";
import { fromBinary } from "@bufbuild/protobuf";
import { type Definition, LocationsSchema, type Op, OpSchema } from "@kiln/api/pb";
import { BuildError, errorMessage } from "@kiln/base";
import type { ResourceUsage } from "@kiln/executor";
import { type GoJson, goStruct } from "../../cache-digest/go-json.ts";
import { redactCredentials } from "../../sources/redact.ts";

/** A definition as provenance shows it. */
export interface BuildSteps {
  /** Ops in the order of their work, the terminal one last. */
  readonly steps: readonly GoJson[];
  /** Place of each op, by its digest. */
  readonly indexes: ReadonlyMap<string, number>;
}

/** Attributes that name a session rather than a source. */
const SESSION_ATTRS = ["local.session", "local.unique"];

/**
 * The steps of a definition, inputs first, with inputs as `step<N>:<output>` and what those of `usage` have used. Credentials in URLs are masked,
 * so a step's digest in `digestMapping` need not be that of what is shown.
 *
 * @throws BuildError `invalid_argument` for a definition that is none.
 */
export function buildSteps(
  definition: Definition | undefined,
  usage: ReadonlyMap<string, ResourceUsage> = new Map(),
): BuildSteps {
  const ops = new Map<string, Op>();
  let last = "";
  for (const bytes of definition?.def ?? []) {
    last = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
    ops.set(last, decode(bytes));
  }
  const terminal = ops.get(last);
  if (terminal === undefined) return { steps: [], indexes: new Map() };
  if (terminal.op.case !== undefined) throw invalid(`invalid last vertex: ${terminal.op.case}`);
  if (terminal.inputs.length !== 1) throw invalid(`invalid last vertex inputs: ${terminal.inputs.length}`);
  const order = inputsFirst(ops, last);
  const indexes = new Map(order.map((digest, at) => [digest, at]));
  const steps = order.map((digest, at) => ({
    ...stepJson(ops.get(digest) as Op, at, indexes),
    resourceUsage: usageJson(usage.get(digest)),
  }));
  return { steps, indexes };
}

function decode(bytes: Uint8Array): Op {
  try {
    return fromBinary(OpSchema, bytes);
  } catch (error) {
    throw invalid(`failed to parse llb proto op: ${errorMessage(error)}`);
  }
}

/** Without recursion: definitions may be very deep. */
function inputsFirst(ops: ReadonlyMap<string, Op>, root: string): string[] {
  const order: string[] = [];
  const open = new Set<string>([root]);
  const stack = [{ digest: root, next: 0 }];
  for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
    const op = ops.get(top.digest);
    if (op === undefined) throw invalid(`failed to find input ${top.digest}`);
    const input = op.inputs[top.next++];
    if (input === undefined) {
      order.push(top.digest);
      stack.pop();
    } else if (!open.has(input.digest)) {
      open.add(input.digest);
      stack.push({ digest: input.digest, next: 0 });
    }
  }
  return order;
}

/** The figures are in BuildKit's words already. */
function usageJson(usage: ResourceUsage | undefined): GoJson | undefined {
  return usage && (JSON.parse(JSON.stringify(usage)) as GoJson);
}

function stepJson(
  op: Op,
  at: number,
  indexes: ReadonlyMap<string, number>,
): Record<string, GoJson | undefined> {
  const inputs = op.inputs.map((input) => `step${indexes.get(input.digest) ?? 0}:${input.index}`);
  redact(op);
  return {
    id: `step${at}`,
    op: goStruct(OpSchema, { ...op, inputs: [] }),
    inputs: inputs.length === 0 ? undefined : inputs,
  };
}

function redact(op: Op): void {
  if (op.op.case === "source") {
    const source = op.op.value;
    source.identifier = redactCredentials(source.identifier);
    for (const key of SESSION_ATTRS) delete source.attrs[key];
    for (const [key, value] of Object.entries(source.attrs)) source.attrs[key] = redactCredentials(value);
  }
  const proxy = op.op.case === "exec" ? op.op.value.meta?.proxyEnv : undefined;
  if (proxy === undefined) return;
  proxy.httpProxy = redactCredentials(proxy.httpProxy);
  proxy.httpsProxy = redactCredentials(proxy.httpsProxy);
  proxy.ftpProxy = redactCredentials(proxy.ftpProxy);
  proxy.allProxy = redactCredentials(proxy.allProxy);
}

/** Steps under their digests: `digestMapping`. */
export function digestMapping({ indexes }: BuildSteps): GoJson | undefined {
  if (indexes.size === 0) return undefined;
  const mapping: Record<string, string> = Object.create(null);
  for (const [digest, at] of [...indexes].sort(([a], [b]) => (a < b ? -1 : 1))) mapping[digest] = `step${at}`;
  return mapping;
}

/** `llbDefinition` and `digestMapping` of a definition. */
export function buildConfig(steps: BuildSteps): Record<string, GoJson | undefined> {
  return {
    llbDefinition: steps.steps.length === 0 ? undefined : steps.steps,
    digestMapping: digestMapping(steps),
  };
}

/** The files that a definition was made from, and which lines each step comes from. */
export function sourceInfo(definition: Definition | undefined, steps: BuildSteps): GoJson | undefined {
  const source = definition?.Source;
  if (source === undefined || source.infos.length === 0) return undefined;
  const locations: Record<string, GoJson> = Object.create(null);
  const found = Object.entries(source.locations)
    .map(([digest, list]) => ({ at: steps.indexes.get(digest), list }))
    .filter((item): item is { at: number; list: typeof item.list } => item.at !== undefined)
    .map(({ at, list }): [string, GoJson] => [`step${at}`, goStruct(LocationsSchema, list)]);
  for (const [step, list] of found.sort(([a], [b]) => (a < b ? -1 : 1))) locations[step] = list;
  return {
    locations: found.length === 0 ? undefined : locations,
    infos: source.infos.map((info) => ({
      filename: info.filename || undefined,
      language: info.language || undefined,
      data: info.data.length === 0 ? undefined : info.data,
      ...buildConfig(buildSteps(info.definition)),
    })),
  };
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
