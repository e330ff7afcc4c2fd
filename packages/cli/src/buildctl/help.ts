import type { FlagSpec } from "../command/flags.ts";
import type { HelpSubject } from "../command/help.ts";
import { VERSION } from "../version.ts";

/** Help laid out as BuildKit's own buildctl does. */
export function buildctlHelp(subject: HelpSubject): string {
  const { path, command, body, globals } = subject;
  const name = path.join(" ");
  const isRoot = path.length === 1;
  const usage = isRoot
    ? `${name} [global options] [command [command options]]`
    : `${name} ${body ? body.usage || "[options]" : "[command [command options]]"}`;
  let out = `NAME:\n   ${name} - ${command.short}\n\nUSAGE:\n   ${usage}\n`;
  if (isRoot) out += `\nVERSION:\n   ${VERSION}\n`;
  const visible = (command.subcommands ?? []).filter((sub) => !sub.hidden);
  if (visible.length > 0) {
    const rows = visible.map((sub) => [[sub.name, ...(sub.aliases ?? [])].join(", "), sub.short] as const);
    out += `\nCOMMANDS:\n${table(rows)}`;
  }
  const help: FlagSpec = { name: "help", short: "h", kind: "bool", usage: "show help" };
  if (!isRoot) out += `\nOPTIONS:\n${flagTable([...(body?.flags ?? []), help])}`;
  out += `\nGLOBAL OPTIONS:\n${flagTable(isRoot ? [...globals, help] : globals)}`;
  return out;
}

function flagTable(flags: readonly FlagSpec[]): string {
  return table(
    flags
      .filter((flag) => !flag.hidden)
      .map((flag) => {
        const type = flag.kind === "bool" ? "" : ` ${flag.typeName ?? "string"}`;
        const names = [`--${flag.name}${type}`, ...(flag.short ? [`-${flag.short}${type}`] : [])].join(", ");
        const preset = flag.defaultValue ? ` (default: ${JSON.stringify(flag.defaultValue)})` : "";
        return [flag.kind === "list" ? `${names} [ ${names} ]` : names, `${flag.usage}${preset}`] as const;
      }),
  );
}

function table(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `   ${left.padEnd(width)}  ${right}\n`).join("");
}
