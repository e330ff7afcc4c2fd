import type { Range } from "@kiln/llb";
import {
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type ParsedNode,
  parseDocument,
  type Scalar,
  type YAMLMap,
} from "yaml";

/** A place in the recipe. */
export interface Node {
  readonly range: Range;
}

/** A text with its place. */
export interface Text extends Node {
  readonly value: string;
}

/** Something that is wrong with a recipe. */
export interface Problem extends Node {
  readonly message: string;
}

/** Largest recipe, in characters. */
const MAX_CHARACTERS = 1 << 20;

/** Reads YAML with places. Everything wrong goes to `problems`. */
export function reader(text: string): { root: Section; problems: Problem[] } {
  const problems: Problem[] = [];
  const lines = new LineCounter();
  const place = (offsets: readonly [number, number]): Range => rangeOf(lines, offsets);
  const state: State = { problems, place, end: [text.length, text.length] };
  if (text.length > MAX_CHARACTERS) {
    problems.push({ message: `a recipe has at most ${MAX_CHARACTERS} characters`, range: place([0, 0]) });
    return { root: new Section(undefined, state, [0, 0]), problems };
  }
  const document = parseDocument(text, { lineCounter: lines, merge: false, version: "1.2" });
  for (const { message, pos } of document.errors) {
    problems.push({ message: message.split("\n", 1)[0] ?? message, range: place(pos) });
  }
  return { root: new Section(document.contents ?? undefined, state, [0, 0]), problems };
}

function rangeOf(lines: LineCounter, [from, end]: readonly [number, number]): Range {
  // A block ends where the next line begins.
  const to = end > from && lines.linePos(end).col === 1 ? end - 1 : end;
  const at = (offset: number): Range["start"] => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(line, 1), character: Math.max(col - 1, 0) };
  };
  return { start: at(from), end: at(Math.max(from, to)) };
}

interface State {
  readonly problems: Problem[];
  readonly place: (offsets: readonly [number, number]) => Range;
  readonly end: readonly [number, number];
}

/** A node of the file that is read key by key; what nobody asks for is a problem. */
export class Section {
  readonly at: Node;
  readonly #node: ParsedNode | undefined;
  readonly #state: State;
  readonly #asked = new Set<string>();

  constructor(node: ParsedNode | undefined, state: State, around: readonly [number, number]) {
    this.#node = node;
    this.#state = state;
    const [from, to] = node?.range ?? around;
    this.at = { range: state.place([from, to]) };
  }

  get isMap(): boolean {
    return isMap(this.#node);
  }

  has(key: string): boolean {
    return this.#map()?.has(key) ?? false;
  }

  /** The text under a key. */
  text(key: string): Text | undefined {
    return this.section(key).scalar();
  }

  /** The list of texts under a key; one text is a list of one. */
  texts(key: string): Text[] | undefined {
    const section = this.section(key);
    if (!isSeq(section.#node)) {
      const one = section.scalar();
      return one && [one];
    }
    return section.#items().flatMap((item) => item.scalar() ?? item.missing("a text") ?? []);
  }

  /** True for `key: true`. */
  flag(key: string): boolean {
    const text = this.text(key);
    if (text === undefined || text.value === "false") return false;
    if (text.value !== "true") this.#add(`${key} is true or false`, text);
    return text.value === "true";
  }

  section(key: string): Section {
    this.#asked.add(key);
    const node = this.#map()?.get(key, true) as ParsedNode | undefined;
    return new Section(
      node,
      this.#state,
      this.#node?.range ? [this.#node.range[0], this.#node.range[1]] : [0, 0],
    );
  }

  /** The list of sections under a key. */
  sections(key: string): Section[] {
    const section = this.section(key);
    if (section.#node === undefined) return [];
    if (isSeq(section.#node)) return section.#items();
    section.problem(`${key} is a list`);
    return [];
  }

  /** All keys with what is below them. */
  entries(): (readonly [string, Section])[] {
    if (this.#node !== undefined && !this.isMap && !isNothing(this.#node)) this.problem("this is a mapping");
    const keys = this.#map()?.items ?? [];
    return keys.map(({ key }) => {
      const name = String((key as Scalar).value);
      return [name, this.section(name)] as const;
    });
  }

  /** The text that this is. Undefined for nothing; for other things that is a problem. */
  scalar(): Text | undefined {
    if (this.#node === undefined || isNothing(this.#node)) return undefined;
    if (isScalar(this.#node)) return { value: scalarText(this.#node), range: this.at.range };
    this.problem("this is a text");
    return undefined;
  }

  /** Notes that something has to be here. */
  missing(what: string): undefined {
    this.problem(`this needs ${what}`);
    return undefined;
  }

  problem(message: string): void {
    this.#add(message, this.at);
  }

  /** Notes the keys that nobody has asked for. */
  finish(): void {
    for (const { key, value } of this.#map()?.items ?? []) {
      const name = String((key as Scalar).value);
      if (this.#asked.has(name)) continue;
      const from = (key as ParsedNode).range[0];
      const to = (value as ParsedNode | null)?.range[1] ?? (key as ParsedNode).range[1];
      const near = nearest(name, this.#asked);
      const hint = near === undefined ? "" : ` (did you mean ${near}?)`;
      this.#add(`unknown key ${name}${hint}`, { range: this.#state.place([from, to]) });
    }
    if (this.#node !== undefined && !this.isMap) this.problem("this is a mapping");
  }

  #map(): YAMLMap.Parsed | undefined {
    return isMap(this.#node) ? (this.#node as YAMLMap.Parsed) : undefined;
  }

  #items(): Section[] {
    if (!isSeq(this.#node)) return [];
    return this.#node.items.map((item) => new Section(item as ParsedNode, this.#state, [0, 0]));
  }

  #add(message: string, { range }: Node): void {
    this.#state.problems.push({ message, range });
  }
}

function isNothing(node: ParsedNode): boolean {
  return isScalar(node) && node.value === null;
}

/** Numbers and dates as they are written. */
function scalarText(node: Scalar.Parsed): string {
  return typeof node.value === "string" ? node.value : (node.source ?? String(node.value));
}

/** The word that differs in at most two letters. */
export function nearest(word: string, known: Iterable<string>): string | undefined {
  let best: { readonly name: string; readonly distance: number } | undefined;
  for (const name of known) {
    const distance = editDistance(word.slice(0, 64), name.slice(0, 64));
    if (distance <= 2 && distance < Math.min(best?.distance ?? 3, name.length)) best = { name, distance };
  }
  return best?.name;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
