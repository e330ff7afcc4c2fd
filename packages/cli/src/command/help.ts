import type { Command, CommandBody } from "./command.ts";
import type { FlagSpec } from "./flags.ts";

const TYPE_NAMES = { string: "string", bool: "", list: "stringArray", csv: "strings" } as const;
const EXPERIMENTAL_HINT =
  "\nExperimental commands and flags are hidden. Set BUILDX_EXPERIMENTAL=1 to show them.\n";

/** What help is about: a command, the words that lead to it, and the flags that all commands share. */
export interface HelpSubject {
  readonly path: readonly string[];
  readonly command: Command;
  readonly body?: CommandBody;
  readonly globals: readonly FlagSpec[];
}

/** The help text of a command, laid out as cobra does. */
export function helpText(subject: HelpSubject, env: NodeJS.ProcessEnv): string {
  const { path, command, body, globals } = subject;
  const name = path.join(" ");
  const isRoot = path.length === 1;
  const visible = (command.subcommands ?? []).filter((sub) => !sub.hidden);
  if (isRoot) visible.push({ name: "help", short: "Help about any command" });
  visible.sort((a, b) => (a.name < b.name ? -1 : 1));
  const usages = body ? [`${name}${body.usage === "" ? "" : ` ${body.usage}`}`] : [name];
  if (visible.length > 0) usages.push(`${name} [command]`);
  let out = `${command.short}\n\nUsage:\n${usages.map((usage) => `  ${usage}\n`).join("")}`;
  if (command.aliases) out += `\nAliases:\n  ${[command.name, ...command.aliases].join(", ")}\n`;
  if (visible.length > 0) {
    const width = Math.max(...visible.map((sub) => sub.name.length), 10) + 1;
    out += `\nAvailable Commands:\n${visible.map((sub) => `  ${sub.name.padEnd(width)} ${sub.short}\n`).join("")}`;
  }
  const help: FlagSpec = { name: "help", short: "h", kind: "bool", usage: `help for ${path.at(-1)}` };
  const own = [...(body?.flags ?? []), ...(isRoot ? globals : []), help];
  out += `\nFlags:\n${flagUsages(own)}`;
  const shared = globals.filter((flag) => !(body?.hidesBuilder && flag.name === "builder"));
  if (!isRoot && shared.length > 0) out += `\nGlobal Flags:\n${flagUsages(shared)}`;
  if (visible.length > 0) out += `\nUse "${name} [command] --help" for more information about a command.\n`;
  const experimental = /^(1|t|T|TRUE|true|True)$/.test(env.BUILDX_EXPERIMENTAL ?? "");
  return experimental ? out : out + EXPERIMENTAL_HINT;
}

function flagUsages(flags: readonly FlagSpec[]): string {
  const rows = flags
    .filter((flag) => !flag.hidden)
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map((flag) => {
      const type = flag.typeName ?? TYPE_NAMES[flag.kind];
      const left = `  ${flag.short ? `-${flag.short}, ` : "    "}--${flag.name}${type === "" ? "" : ` ${type}`}`;
      return [left, `${flag.usage}${defaultText(flag)}`] as const;
    });
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, usage]) => `${left.padEnd(width)}   ${usage}\n`).join("");
}

function defaultText(flag: FlagSpec): string {
  if (flag.defaultValue === undefined || flag.defaultValue === "" || flag.defaultValue === "false") return "";
  const quoted = flag.kind === "string" && flag.typeName === undefined;
  return ` (default ${quoted ? JSON.stringify(flag.defaultValue) : flag.defaultValue})`;
}
