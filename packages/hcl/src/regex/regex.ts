import { checkTextLength } from "../work.ts";
import { isWord, parseRegex, type RegexNode } from "./syntax.ts";

/** Most instructions a pattern may compile to. */
const MAX_PROGRAM = 20_000;

type Instruction =
  | { readonly op: "char"; readonly test: (code: number) => boolean }
  | { readonly op: "split"; first: number; second: number }
  | { readonly op: "jump"; to: number }
  | { readonly op: "save"; readonly slot: number }
  | { readonly op: "assert"; readonly what: string }
  | { readonly op: "match" };

/** Where the whole match (0) and each group began and ended; `undefined` for groups that took no part. */
export type Captures = readonly (readonly [start: number, end: number] | undefined)[];

/**
 * A regular expression of RE2: its syntax, leftmost-first matching, and time linear in the text, so that no
 * pattern can hang the program.
 */
export class Regex {
  readonly groups: readonly string[];
  readonly #program: readonly Instruction[];

  constructor(pattern: string) {
    const { node, groups } = parseRegex(pattern);
    this.groups = groups;
    this.#program = compile(node);
  }

  /** The leftmost match that starts at `from` or later. */
  find(text: string, from = 0): Captures | undefined {
    const slots = run(this.#program, text, from, (this.groups.length + 1) * 2);
    if (slots === undefined) return undefined;
    const captures: (readonly [number, number] | undefined)[] = [];
    for (let i = 0; i < slots.length; i += 2) {
      const [start, end] = [slots[i]!, slots[i + 1]!];
      captures.push(start < 0 || end < 0 ? undefined : [start, end]);
    }
    return captures;
  }

  /** All matches that don't overlap, as Go finds them. */
  findAll(text: string): Captures[] {
    const out: Captures[] = [];
    let previousEnd = -1;
    for (let at = 0; at <= text.length; ) {
      const found = this.find(text, at);
      const whole = found?.[0];
      if (found === undefined || whole === undefined) break;
      const [start, end] = whole;
      const accept = end !== at || start !== previousEnd;
      at = end === at ? at + charWidth(text, at) : end;
      previousEnd = end;
      if (accept) out.push(found);
    }
    return out;
  }

  /** Replaces all matches; `$1` and `${name}` stand for groups. */
  replaceAll(text: string, replacement: string): string {
    let out = "";
    let last = 0;
    for (let at = 0; at <= text.length; ) {
      const found = this.find(text, at);
      const whole = found?.[0];
      if (found === undefined || whole === undefined) break;
      const [start, end] = whole;
      out += text.slice(last, start);
      checkTextLength(out.length);
      if (end > last || start === 0) out += this.#expand(replacement, text, found);
      last = end;
      const width = charWidth(text, at);
      at = Math.max(at + width, end);
    }
    return out + text.slice(last);
  }

  #expand(template: string, text: string, found: Captures): string {
    return template.replace(/\$(?:(\$)|\{([A-Za-z0-9_]+)\}|([A-Za-z0-9_]+))/g, (_, dollar, braced, plain) => {
      if (dollar !== undefined) return "$";
      const name = String(braced ?? plain);
      const index = /^(0|[1-9]\d*)$/.test(name) ? Number(name) : this.groups.indexOf(name) + 1 || -1;
      const capture = found[index];
      return capture === undefined ? "" : text.slice(capture[0], capture[1]);
    });
  }
}

function charWidth(text: string, at: number): number {
  return (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1;
}

function compile(node: RegexNode): Instruction[] {
  const program: Instruction[] = [{ op: "save", slot: 0 }];
  emit(program, node);
  program.push({ op: "save", slot: 1 }, { op: "match" });
  return program;
}

function emit(program: Instruction[], node: RegexNode): void {
  if (program.length > MAX_PROGRAM) throw new RangeError("expression too large");
  switch (node.kind) {
    case "empty":
      return;
    case "char":
      program.push({ op: "char", test: node.test });
      return;
    case "assert":
      program.push({ op: "assert", what: node.what });
      return;
    case "group":
      program.push({ op: "save", slot: node.index * 2 });
      emit(program, node.node);
      program.push({ op: "save", slot: node.index * 2 + 1 });
      return;
    case "sequence":
      for (const child of node.nodes) emit(program, child);
      return;
    case "choice":
      emitChoice(program, node.nodes);
      return;
    default:
      emitRepeat(program, node);
  }
}

function emitChoice(program: Instruction[], nodes: readonly RegexNode[]): void {
  const jumps: { op: "jump"; to: number }[] = [];
  for (const [i, child] of nodes.entries()) {
    if (i === nodes.length - 1) {
      emit(program, child);
      break;
    }
    const split = { op: "split" as const, first: program.length + 1, second: 0 };
    program.push(split);
    emit(program, child);
    const jump = { op: "jump" as const, to: 0 };
    program.push(jump);
    jumps.push(jump);
    split.second = program.length;
  }
  for (const jump of jumps) jump.to = program.length;
}

function emitRepeat(program: Instruction[], node: Extract<RegexNode, { kind: "repeat" }>): void {
  for (let i = 0; i < node.min; i++) emit(program, node.node);
  const branch = (): { op: "split"; first: number; second: number } => {
    const split = { op: "split" as const, first: 0, second: 0 };
    program.push(split);
    return split;
  };
  const aim = (split: { first: number; second: number }, body: number, exit: number): void => {
    split.first = node.greedy ? body : exit;
    split.second = node.greedy ? exit : body;
  };
  if (node.max === Number.POSITIVE_INFINITY) {
    const at = program.length;
    const split = branch();
    emit(program, node.node);
    program.push({ op: "jump", to: at });
    aim(split, at + 1, program.length);
    return;
  }
  const splits: [{ first: number; second: number }, number][] = [];
  for (let i = node.min; i < node.max; i++) {
    splits.push([branch(), program.length]);
    emit(program, node.node);
  }
  for (const [split, body] of splits) aim(split, body, program.length);
}

interface Thread {
  readonly pc: number;
  readonly slots: Int32Array;
}

/** Runs all alternatives side by side, in the order of their preference. */
function run(
  program: readonly Instruction[],
  text: string,
  from: number,
  slotCount: number,
): Int32Array | undefined {
  let current: Thread[] = [];
  let matched: Int32Array | undefined;
  const seen = new Int32Array(program.length).fill(-1);
  let generation = 0;
  for (let at = from; ; ) {
    generation++;
    const pending: Thread[] = [];
    const queue =
      matched === undefined ? [...current, { pc: 0, slots: new Int32Array(slotCount).fill(-1) }] : current;
    for (const thread of queue) follow(program, thread, pending, { text, at, seen, generation });
    const code = text.codePointAt(at);
    const next: Thread[] = [];
    for (const thread of pending) {
      const instruction = program[thread.pc]!;
      if (instruction.op === "match") {
        matched = thread.slots;
        break;
      }
      if (instruction.op === "char" && code !== undefined && instruction.test(code)) {
        next.push({ pc: thread.pc + 1, slots: thread.slots });
      }
    }
    current = next;
    if (code === undefined || (current.length === 0 && matched !== undefined)) return matched;
    at += code > 0xffff ? 2 : 1;
  }
}

interface Place {
  readonly text: string;
  readonly at: number;
  readonly seen: Int32Array;
  readonly generation: number;
}

/** Takes a thread to the instructions that need a character, each reached once only. */
function follow(program: readonly Instruction[], start: Thread, out: Thread[], place: Place): void {
  const stack: Thread[] = [start];
  for (let thread = stack.pop(); thread !== undefined; thread = stack.pop()) {
    const { pc, slots } = thread;
    if (place.seen[pc] === place.generation) continue;
    place.seen[pc] = place.generation;
    const instruction = program[pc]!;
    switch (instruction.op) {
      case "jump":
        stack.push({ pc: instruction.to, slots });
        break;
      case "split":
        stack.push({ pc: instruction.second, slots }, { pc: instruction.first, slots });
        break;
      case "save": {
        const copy = slots.slice();
        copy[instruction.slot] = place.at;
        stack.push({ pc: pc + 1, slots: copy });
        break;
      }
      case "assert":
        if (holds(instruction.what, place)) stack.push({ pc: pc + 1, slots });
        break;
      default:
        out.push(thread);
    }
  }
}

function holds(what: string, { text, at }: Place): boolean {
  const before = at === 0 ? -1 : text.charCodeAt(at - 1);
  const after = at >= text.length ? -1 : text.charCodeAt(at);
  switch (what) {
    case "start":
      return at === 0;
    case "end":
      return at === text.length;
    case "lineStart":
      return before === -1 || before === 10;
    case "lineEnd":
      return after === -1 || after === 10;
    default:
      return (isWord(before) !== isWord(after)) === (what === "word");
  }
}
