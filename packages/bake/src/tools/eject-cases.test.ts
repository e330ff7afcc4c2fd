import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import {
  type BakeFile,
  checkConfig,
  definitionFile,
  type EjectFormat,
  ejectPlan,
  readBake,
} from "../index.ts";
import { runCommand } from "../testing/command.ts";
import { type MemoryMachine, memoryHost } from "../testing/memory-host.ts";

interface EjectCase {
  readonly name: string;
  readonly files: Readonly<Record<string, string>>;
  readonly runs: readonly {
    readonly argv: readonly string[];
    readonly env?: Readonly<Record<string, string>>;
    readonly cwd?: string;
    readonly stdin?: string;
    readonly print?: unknown;
  }[];
}

const DIRECTORY = new URL("../../testdata/", import.meta.url);
const SURROUNDINGS = { PATH: "/usr/bin:/bin", HOME: "/work/home", SSH_AUTH_SOCK: "/work/home/agent.sock" };
/** Loading a module for each case takes time. */
const EVERY_NTH_SCRIPT = 7;

async function fileOf(text: string, format: EjectFormat): Promise<BakeFile> {
  if (format !== "ts") return { name: `docker-bake.${format}`, data: new TextEncoder().encode(text) };
  const script = text.replace(/^import .*\n/, "const defineBake = (config) => config;\n");
  const loaded = (await import(`data:text/javascript,${encodeURIComponent(script)}`)) as { default: unknown };
  const checked = checkConfig(loaded.default);
  assert.ok("config" in checked, JSON.stringify(checked));
  return definitionFile(checked.config);
}

/** What `--print` says about the ejected form of what `first` said. */
async function ejected(first: string, format: EjectFormat, machine: MemoryMachine): Promise<unknown> {
  const file = await fileOf(ejectPlan({ print: () => first }, format), format);
  const outcome = readBake([file], memoryHost(machine));
  assert.ok(outcome.ok, outcome.ok ? "" : outcome.failure.message);
  return JSON.parse(outcome.value.print());
}

for (const name of readdirSync(DIRECTORY).sort()) {
  test(`ejected definitions print the same: ${name}`, async () => {
    const cases = JSON.parse(readFileSync(new URL(name, DIRECTORY), "utf8")) as readonly EjectCase[];
    let count = 0;
    for (const { name: title, files, runs } of cases) {
      for (const { argv, env, cwd = ".", stdin = "", print } of runs) {
        if (print === undefined || !argv.includes("--print")) continue;
        const machine = { files, sockets: [SURROUNDINGS.SSH_AUTH_SOCK], cwd };
        const host = memoryHost({ ...machine, env: { ...SURROUNDINGS, ...env } });
        const { code, stdout } = runCommand(argv, host, () => new TextEncoder().encode(stdin));
        if (code !== 0) continue;
        const formats: EjectFormat[] = ["hcl", "json"];
        if (count++ % EVERY_NTH_SCRIPT === 0) formats.push("ts");
        for (const format of formats) {
          const what = `${title} ${argv.join(" ")} ${format}`;
          const again = await ejected(stdout, format, { ...machine, env: SURROUNDINGS });
          assert.deepEqual(again, JSON.parse(stdout), what);
        }
      }
    }
    assert.ok(count > 0);
  });
}
