// Evaluates a bake definition and prints it: `node scripts/bake-print.ts [-f file] [--set …] [--list …] [target…]`.
// Used to compare evaluation with other tools; `kiln bake` is the real command.
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { type BakeOptions, filesFromEnvironment, readBake, readBakeFiles, readDefinition } from "@kiln/bake";
import { errorMessage } from "@kiln/base";
import { nodeBakeHost } from "../packages/cli/src/bake-host.ts";

const TEXT = { type: "string" } as const;
const TEXTS = { type: "string", multiple: true } as const;
const FLAG = { type: "boolean" } as const;

/** `--no-cache` and `--pull` may have a value: `--pull=false`. */
function boolFlag(args: string[], name: string): boolean | undefined {
  let value: boolean | undefined;
  for (let i = args.length - 1; i >= 0; i--) {
    const match = new RegExp(`^--${name}(?:=(.*))?$`).exec(args[i] ?? "");
    if (match === null) continue;
    value ??= match[1] !== "false";
    args.splice(i, 1);
  }
  return value;
}

function main(given: readonly string[]): string {
  const args = given[0] === "bake" ? given.slice(1) : [...given];
  const noCache = boolFlag(args, "no-cache");
  const pull = boolFlag(args, "pull");
  const push = boolFlag(args, "push");
  const load = boolFlag(args, "load");
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      file: { ...TEXTS, short: "f" },
      set: TEXTS,
      var: TEXTS,
      allow: TEXTS,
      policy: TEXTS,
      list: TEXT,
      call: TEXT,
      sbom: TEXT,
      provenance: TEXT,
      "metadata-file": TEXT,
      progress: TEXT,
      builder: TEXT,
      print: FLAG,
      check: FLAG,
      debug: { ...FLAG, short: "D" },
    },
  });
  if (values.print === true && values.list !== undefined)
    throw new Error("--print and --list are mutually exclusive");
  const host = nodeBakeHost();
  const names = values.file ?? filesFromEnvironment(host) ?? [];
  const files = readBakeFiles(names, host, () => readFileSync(0));
  const { set = [], var: vars = [], allow = [], policy = [] } = values;
  const call = values.check === true ? "check" : values.call;
  const options: BakeOptions = {
    targets: positionals,
    set,
    vars,
    allow,
    policy,
    ...(push === undefined ? {} : { push }),
    ...(load === undefined ? {} : { load }),
    ...(noCache === undefined ? {} : { noCache }),
    ...(pull === undefined ? {} : { pull }),
    ...(call === undefined ? {} : { call }),
    ...(values.sbom === undefined ? {} : { sbom: values.sbom }),
    ...(values.provenance === undefined ? {} : { provenance: values.provenance }),
  };
  if (values.list !== undefined) {
    const outcome = readDefinition(files, host, options);
    if (outcome.ok) return outcome.value.list(values.list);
    process.stderr.write(outcome.failure.excerpt);
    throw new Error(outcome.failure.message);
  }
  const outcome = readBake(files, host, options);
  if (outcome.ok) return outcome.value.print();
  process.stderr.write(outcome.failure.excerpt);
  throw new Error(outcome.failure.message);
}

try {
  process.stdout.write(main(process.argv.slice(2)));
} catch (error) {
  process.stderr.write(`ERROR: ${errorMessage(error)}\n`);
  process.exitCode = 1;
}
