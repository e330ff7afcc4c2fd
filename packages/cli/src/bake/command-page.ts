/** The reference page of `kiln bake`, made of its flags. */
import { DEFAULT_FILES } from "@kiln/bake";
import type { CommandBody } from "../command/command.ts";
import { TYPED_DEFINITION } from "./evaluate-definition.ts";
import { questionFlags } from "./questions.ts";

const FILES = `## Which files are read

Those that \`-f\` names, in that order; else those that \`BUILDX_BAKE_FILE\` names; else, of these names, all that exist in
the working directory, in this order, as Buildx does it:

${DEFAULT_FILES.map((name) => `1. \`${name}\``).join("\n")}

When none of them is there, \`${TYPED_DEFINITION}\` is read. When one is, \`${TYPED_DEFINITION}\` is not, and a warning says so: a
project that Buildx can build is built the same by Kiln. A file whose name ends in \`.ts\`, \`.mts\`, \`.js\` or \`.mjs\` is a
typed definition wherever it is named; of a URL only those that \`-f\` names.
`;

const DEFINITIONS = `## What a definition may do

A typed definition is a program. It is stripped of its types, not checked by them (editors do that, see \`--types\`), and
evaluated in a process of its own, in which

- it can import \`@kiln/bake\` and nothing else: no files, no packages, no modules of Node;
- it sees no environment; \`variable(NAME)\` asks for variables by name as HCL does, and
  \`BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP=1\` leaves \`--var\` alone;
- it has the language, \`console\`, URLs, text encoding and timers, and neither \`process\` nor \`fetch\`, \`eval\` or WebAssembly;
- Node's permission model refuses it files, child processes, threads, addons and (Node 25 and newer) the network;
- it has 10 seconds, 256 MiB of heap and, on Linux, 1 GiB of memory in all.

Its value must be JSON; attributes are checked by the records that the [attributes' page](bake.md) is made of.

This keeps a definition from doing harm by accident and from the usual tricks. Node says of its permission model that it
is no boundary against code made to break out of it, and Kiln promises no more; on Node 24 the network is held back by what
the process lacks, not by Node (the Node that Kiln comes with is newer). What the targets then build is another matter:
that is what \`--allow\` and the daemon's settings are for, as with any definition.

\`--allow\` opens what is needed, beside the permissions for builds that Buildx has:

| | |
|---|---|
| \`--allow definition.read=PATH\` | read and import a file, or all below a directory; \`node:fs\`, \`node:fs/promises\`, \`node:path\` and \`node:url\` can be imported |
| \`--allow definition.network\` | \`fetch\` and whatever else of Node's globals |
`;

function cell(text: string): string {
  return text.replaceAll("|", "\\|");
}

/** The page in Markdown. */
export function commandPage({ usage, flags }: CommandBody): string {
  const shown = flags.filter(({ hidden }) => !hidden).toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const rows = shown.map((flag) => {
    const short = flag.short === undefined ? "" : `\`-${flag.short}\`, `;
    const repeats = flag.kind === "list" ? " May be repeated." : "";
    return `| ${short}\`--${flag.name}\` | ${cell(flag.usage)}.${repeats} |`.replaceAll("..", ".");
  });
  const sections = questionFlags.map(({ name, doc }) => `### --${name}\n\n${doc}\n`);
  return `# kiln bake

<!-- Written by packages/cli from the command's flags. Change those, then run its tests with KILN_UPDATE_DOCS=1. -->

\`kiln bake ${usage}\` builds targets that files describe. [The guide](../guide/bake.md) has examples,
[another page](bake.md) the attributes of targets.

| Flag | |
|---|---|
${rows.join("\n")}

## Asking instead of building

One of these at a time; answers go to standard output, and nothing is built.

${sections.join("\n")}
${FILES}
${DEFINITIONS}`;
}
