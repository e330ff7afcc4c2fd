import { type Diagnostic, lintDockerfile, parseDockerfile } from "./api.ts";
import { textFromBytes } from "./base/bytes.ts";
import { type CompileOptions, compileDockerfile } from "./compile-simple.ts";

/** Options of {@link checkDockerfile}. */
export interface CheckOptions
  extends Pick<CompileOptions, "filename" | "buildArgs" | "platform" | "ignore" | "target" | "resolveImage"> {
  /** As `# check=` has it (`skip=…;error=true;experimental=…`); by default that of the file. */
  readonly check?: string | undefined;
}

/**
 * Checks a Dockerfile without a daemon: all mistakes, or else the findings of all stages, by line.
 *
 * Without `resolveImage` nothing is known of base images. Then a variable that isn't defined counts only when its name
 * is close to one that is: a base image may set any other. Platforms of base images aren't looked at.
 */
export async function checkDockerfile(
  input: string | Uint8Array,
  options: CheckOptions = {},
): Promise<Diagnostic[]> {
  const { filename } = options;
  const text = typeof input === "string" ? input : textFromBytes(input);
  const parsed = parseDockerfile(text, { filename });
  if (text !== "" && parsed.diagnostics.length > 0) {
    const others = lintDockerfile(text, { filename, check: options.check }).filter(
      ({ severity }) => severity === "warning",
    );
    return byLine([...parsed.diagnostics, ...others]);
  }
  const { diagnostics } = await compileDockerfile(text, {
    ...options,
    allStages: options.target === undefined,
  });
  const knowsImages = options.resolveImage !== undefined;
  return byLine(
    diagnostics.filter(({ rule, message }) => {
      if (knowsImages || rule === undefined) return true;
      if (rule.name === "InvalidBaseImagePlatform") return false;
      return rule.name !== "UndefinedVar" || message.includes("did you mean");
    }),
  );
}

function byLine(diagnostics: readonly Diagnostic[]): Diagnostic[] {
  const line = ({ ranges }: Diagnostic): number => ranges[0]?.start.line ?? 0;
  return diagnostics.toSorted((a, b) => line(a) - line(b));
}
