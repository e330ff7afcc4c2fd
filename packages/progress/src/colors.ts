/** Start sequences of the tty display's colours; an absent one leaves the row as it is. */
export interface ProgressColors {
  readonly run?: string;
  readonly cancel?: string;
  readonly warning?: string;
  readonly error?: string;
}

const NAMES: ReadonlyMap<string, number> = new Map(
  ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"].flatMap((name, i) => [
    [name, 30 + i] as const,
    [`light-${name}`, 90 + i] as const,
  ]),
);

const KEYS = ["run", "cancel", "error", "warning"] as const;

/**
 * The colours that `NO_COLOR` and `BUILDKIT_COLORS` (`run=green:error=200,0,0`) ask for. Entries that can't be
 * understood are left out and named in `problems`.
 */
export function readProgressColors(env: (name: string) => string | undefined): {
  colors: ProgressColors;
  problems: readonly string[];
} {
  if (env("NO_COLOR")) return { colors: {}, problems: [] };
  const colors: Record<string, string> = { run: sgr(34), cancel: sgr(33), warning: sgr(33), error: sgr(31) };
  const problems: string[] = [];
  const text = env("BUILDKIT_COLORS") ?? "";
  for (const field of text === "" ? [] : text.split(":")) {
    const [key, value, ...more] = field.split("=");
    const color = value === undefined || more.length > 0 ? undefined : parseColor(value.toLowerCase());
    const name = KEYS.find((candidate) => candidate === key?.toLowerCase());
    if (color === undefined) problems.push(`could not parse BUILDKIT_COLORS component: ${field}`);
    else if (name === undefined) {
      problems.push(
        `unknown key found in BUILDKIT_COLORS (expected: run, cancel, error, or warning): ${key}`,
      );
    } else colors[name] = color;
  }
  return { colors, problems };
}

function parseColor(value: string): string | undefined {
  if (value === "default") return sgr(39);
  const code = NAMES.get(value);
  if (code !== undefined) return sgr(code);
  const rgb = value.replaceAll('"', "").split(",").map(Number);
  if (rgb.length !== 3 || rgb.some((part) => !Number.isInteger(part) || part < 0 || part > 255))
    return undefined;
  const [red = 0, green = 0, blue = 0] = rgb.map((part) => Math.trunc((part * 6) / 256));
  return `\x1b[38;5;${16 + 36 * red + 6 * green + blue}m`;
}

function sgr(code: number): string {
  return `\x1b[${code}m`;
}
