import { formatPlatform, type Platform, parsePlatform } from "@kiln/oci";

/** Groups that a table shows. */
const MAX_GROUPS = 4;
const MAJOR = [
  "linux/amd64",
  "linux/arm64",
  "linux/arm",
  "linux/ppc64le",
  "linux/s390x",
  "linux/riscv64",
  "linux/mips64",
];

/** Platform texts without duplicates, the explicit ones first and marked by `*`. */
export function platformTexts(explicit: readonly Platform[], detected: readonly Platform[]): string[] {
  const seen = new Set<string>();
  const add = (platforms: readonly Platform[], mark: string): string[] =>
    platforms.flatMap((platform) => {
      const text = formatPlatform(platform);
      if (seen.has(text)) return [];
      seen.add(text);
      return `${text}${mark}`;
    });
  return [...add(explicit, "*"), ...add(detected, "")];
}

/** Some groups of platforms: `linux/amd64 (+3), linux/arm64, (5 more)`. */
export function truncatedPlatforms(texts: readonly string[]): string {
  const groups = groupTexts(texts);
  const others = [...groups.keys()].filter((key) => !MAJOR.includes(key)).sort();
  const out: string[] = [];
  let shown = 0;
  const show = (key: string): void => {
    const members = groups.get(key) as string[];
    const mark = members.some((text) => text.endsWith("*")) ? "*" : "";
    out.push(members.length === 1 ? (members[0] as string) : `${key}${mark} (+${members.length})`);
    shown += members.length;
  };
  for (const key of MAJOR) if (groups.has(key)) show(key);
  for (const key of others) if (out.length < MAX_GROUPS) show(key);
  if (texts.length > shown) out.push(`(${texts.length - shown} more)`);
  return out.join(", ");
}

function groupTexts(texts: readonly string[]): Map<string, string[]> {
  const keyed = texts.flatMap((text) => {
    try {
      const { os, architecture } = parsePlatform(text.replace(/\*$/, ""));
      return [{ key: `${os}/${architecture}`, text }];
    } catch {
      return [];
    }
  });
  const groups = new Map<string, string[]>();
  for (const major of MAJOR) {
    for (const { key, text } of keyed) {
      if (key !== major || groups.size >= MAX_GROUPS) continue;
      groups.set(key, [...(groups.get(key) ?? []), text]);
    }
  }
  const rest = new Map<string, string[]>();
  for (const { key, text } of keyed) {
    if (groups.size >= MAX_GROUPS) break;
    if (!groups.has(key)) rest.set(key, [...(rest.get(key) ?? []), text]);
  }
  return new Map([...groups, ...rest]);
}
