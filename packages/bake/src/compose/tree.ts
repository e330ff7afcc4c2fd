import { formatValue } from "@kiln/formats";
import { sortedKeys } from "@kiln/hcl";

/** What a YAML document holds. Whole numbers are `bigint`. */
export type Tree = null | boolean | bigint | number | string | Tree[] | TreeMap;

/** A mapping with text keys. */
export type TreeMap = Map<string, Tree>;

/** Where a value stands: the keys that lead to it. */
export type TreePath = readonly string[];

/** True for a mapping. */
export function isMap(value: Tree | undefined): value is TreeMap {
  return value instanceof Map;
}

/** A value as Go's `%v` prints it. */
export function goText(value: Tree): string {
  if (value === null) return "<nil>";
  if (typeof value === "number") return formatValue(value);
  if (Array.isArray(value)) return `[${value.map(goText).join(" ")}]`;
  if (isMap(value))
    return `map[${sortedKeys(value)
      .map((key) => `${key}:${goText(value.get(key)!)}`)
      .join(" ")}]`;
  return String(value);
}

/** A value's type as Go's `%T` prints it. */
export function goType(value: Tree | undefined): string {
  if (value === null || value === undefined) return "<nil>";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "bigint") return "int";
  if (typeof value === "number") return "float64";
  if (typeof value === "string") return "string";
  return Array.isArray(value) ? "[]interface {}" : "map[string]interface {}";
}

/** A path as messages show it. */
export function pathText(path: TreePath): string {
  return path.join(".");
}

/** True when the path has as many parts as the pattern and they agree; `*` in the pattern stands for any. */
export function pathMatches(path: TreePath, pattern: TreePath): boolean {
  return path.length === pattern.length && pattern.every((part, i) => part === "*" || part === path[i]);
}

/** A copy that shares nothing. */
export function cloneTree(value: Tree): Tree {
  if (Array.isArray(value)) return value.map(cloneTree);
  if (isMap(value)) return new Map([...value].map(([key, item]) => [key, cloneTree(item)]));
  return value;
}

/** A member that is a mapping. */
export function mapAt(value: Tree | undefined, key: string): TreeMap | undefined {
  const member = isMap(value) ? value.get(key) : undefined;
  return isMap(member) ? member : undefined;
}
