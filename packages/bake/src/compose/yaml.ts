import { decodeSource, quote } from "@kiln/hcl";
import {
  type Alias,
  type Document,
  isAlias,
  isScalar,
  isSeq,
  isMap as isYamlMap,
  LineCounter,
  type Node,
  parseAllDocuments,
  type YAMLMap,
} from "yaml";
import { fail } from "../problem.ts";
import { isMap, type Tree, type TreeMap, type TreePath } from "./tree.ts";
import { plainScalar } from "./yaml-scalar.ts";
import { syntaxProblem } from "./yaml-syntax.ts";

/** One YAML document of a Compose file. */
export interface ComposeDocument {
  readonly value: Tree;
  /** Places with `!reset` or `!override`: what earlier files say there is forgotten. */
  readonly cleared: readonly TreePath[];
  /** Something that is told only when the document is used. */
  readonly problem?: string;
}

const MAX_NODES = 500_000;
const MAX_DEPTH = 1000;

/** Reads the documents of a file. */
export function readYaml(data: Uint8Array): ComposeDocument[] {
  const text = decodeSource(data);
  const lines = new LineCounter();
  const documents = parseAllDocuments(text, {
    schema: "failsafe",
    uniqueKeys: false,
    merge: false,
    prettyErrors: false,
    logLevel: "silent",
    lineCounter: lines,
  });
  if (!Array.isArray(documents)) return [];
  return documents.map((document) => new Reader(document, text, lines).read());
}

class Reader {
  readonly #document: Document;
  readonly #text: string;
  readonly #lines: LineCounter;
  readonly #cleared: TreePath[] = [];
  readonly #open = new Map<Node, TreePath>();
  #keyProblem: string | undefined;
  readonly #anchors = new Map<string, Node>();
  #nodes = 0;

  constructor(document: Document, text: string, lines: LineCounter) {
    this.#document = document;
    this.#text = text;
    this.#lines = lines;
  }

  read(): ComposeDocument {
    const [error] = this.#document.errors;
    if (error !== undefined) {
      fail(`yaml: ${syntaxProblem(this.#text, this.#lines, error)}`);
    }
    const contents = this.#document.contents as Node | null;
    const value = contents === null ? null : (this.#value(contents, []) ?? null);
    const problem = this.#keyProblem;
    return { value, cleared: this.#cleared, ...(problem === undefined ? {} : { problem }) };
  }

  #refuse(why: string): never {
    const root = this.#document.contents as Node | null;
    return fail(`yaml: construct errors:\n  line ${this.#line(root?.range?.[0] ?? 0)}: ${why}`);
  }

  #line(offset: number): number {
    return this.#lines.linePos(offset).line;
  }

  /** `undefined` for what `!reset` takes away. */
  #value(node: Node, path: TreePath): Tree | undefined {
    this.#nodes++;
    if (this.#nodes > MAX_NODES) fail("yaml: document contains excessive aliasing");
    if (path.length > MAX_DEPTH) fail("yaml: exceeded max depth of 10000");
    if (isAlias(node)) return this.#alias(node, path);
    const { anchor } = node as { anchor?: string };
    if (anchor !== undefined) this.#anchors.set(anchor, node);
    if (node.tag === "!reset") {
      this.#cleared.push(path);
      return undefined;
    }
    if (node.tag === "!override") this.#cleared.push(path);
    if (isScalar(node)) {
      return scalar(
        node.source ?? String(node.value ?? ""),
        node.type === "PLAIN" || node.type === undefined,
        node.tag,
        (why) => this.#refuse(why),
      );
    }
    this.#open.set(node, path);
    const value = isYamlMap(node)
      ? this.#map(node, path)
      : isSeq(node)
        ? this.#sequence(node.items as Node[], path)
        : null;
    this.#open.delete(node);
    return value;
  }

  #alias(alias: Alias, path: TreePath): Tree | undefined {
    const target = this.#anchors.get(alias.source);
    if (target === undefined) {
      const { line, col } = this.#lines.linePos(alias.range?.[0] ?? 0);
      fail(`yaml: line ${line}, column ${col + 1}: unknown anchor '${alias.source}' referenced`);
    }
    const outer = this.#open.get(target);
    if (outer !== undefined) {
      const inner = [...path, ...path.slice(outer.length)].join(".");
      this.#refuse(`cycle detected: node at path ${inner} references node at path ${path.join(".")}`);
    }
    return this.#value(target, path);
  }

  #sequence(items: readonly Node[], path: TreePath): Tree[] {
    const out: Tree[] = [];
    for (const [i, item] of items.entries()) {
      const value = this.#value(item, [...path, String(i)]);
      if (value !== undefined) out.push(value);
    }
    return out;
  }

  #map(node: YAMLMap, path: TreePath): TreeMap {
    const own: TreeMap = new Map();
    const merged: TreeMap[] = [];
    const seen = new Map<string, number>();
    for (const pair of node.items) {
      const keyNode = pair.key as Node | null;
      const key = keyNode === null ? null : this.#key(keyNode, path);
      const line = this.#line(keyNode?.range?.[0] ?? 0);
      const shown = key === null ? "" : String(key);
      const before = seen.get(shown);
      if (before !== undefined) {
        this.#refuse(`line ${line}: mapping key ${quote(shown)} already defined at line ${before}`);
      }
      seen.set(shown, line);
      const valueNode = pair.value as Node | null;
      if (key === "<<" && isScalar(keyNode) && keyNode.type === "PLAIN") {
        if (valueNode !== null) merged.push(...this.#merged(valueNode, path));
        continue;
      }
      if (typeof key !== "string") {
        this.#keyProblem ??= badKey(path, key);
        continue;
      }
      const value = valueNode === null ? null : this.#value(valueNode, [...path, key]);
      if (value !== undefined) own.set(key, value);
    }
    for (const source of merged) for (const [key, value] of source) if (!own.has(key)) own.set(key, value);
    return own;
  }

  #key(node: Node, path: TreePath): Tree {
    return this.#value(node, path) ?? null;
  }

  #merged(node: Node, path: TreePath): TreeMap[] {
    const value = this.#value(node, path);
    if (isMap(value)) return [value];
    if (Array.isArray(value) && value.every(isMap)) return value;
    return fail(
      "yaml: construct errors:\n  line 1: yaml: map merge requires map or sequence of maps as the value",
    );
  }
}

function badKey(path: TreePath, key: Tree): string {
  const where = path.length === 0 ? "at top level" : `in ${path.join(".")}`;
  return `non-string key ${where}: ${key === null ? "interface {}(nil)" : String(key)}`;
}

function scalar(text: string, plain: boolean, tag: string | undefined, refuse: (why: string) => never): Tree {
  if (tag === undefined || tag === "!override") return plain ? plainScalar(text) : text;
  const value = plainScalar(text);
  const fits = (
    {
      "tag:yaml.org,2002:bool": typeof value === "boolean",
      "tag:yaml.org,2002:int": typeof value === "bigint",
      "tag:yaml.org,2002:float": typeof value === "number" || typeof value === "bigint",
      "tag:yaml.org,2002:null": value === null,
    } as Readonly<Record<string, boolean>>
  )[tag];
  if (fits === undefined) return text;
  return fits
    ? value
    : refuse(`yaml: cannot construct !!str \`${text}\` as a !!${tag.slice(tag.lastIndexOf(":") + 1)}`);
}
