import { eachOption } from "./options.ts";

/** What `--help` prints: every flag from the table of options. */
export function helpText(program: string): string {
  const rows = eachOption()
    .filter(([, option]) => option.flag !== undefined && !("hidden" in option && option.hidden))
    .map(([, option]) => {
      const value = option.kind === "bool" ? "" : " value";
      const env = option.env === undefined ? "" : ` [$${option.env}]`;
      const refused = option.refused === undefined ? "" : ` (refused: ${option.refused})`;
      return [`   --${option.flag}${value}`, `${option.doc}${refused}${env}`] as const;
    });
  const width = Math.max(...rows.map(([flag]) => flag.length)) + 2;
  const lines = rows.map(([flag, doc]) => `${flag.padEnd(width)}${doc}`);
  return `NAME:\n   ${program} - build daemon\n\nUSAGE:\n   ${program} [global options]\n\nGLOBAL OPTIONS:\n${lines.join("\n")}\n`;
}
