/**
 * What a program's file in `dist/` consists of: it finds the program's body (see `build.ts`) and runs it with V8's code
 * cache. Node's own compile cache holds only what is compiled at once; this one also holds the functions that a run
 * has called, so that later runs needn't compile anything.
 */
import { readFileSync, renameSync, unlinkSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Script } from "node:vm";

/** A program's body: by the command that is asked for, or the one for all others. Replaced by the build. */
declare const BODIES: { readonly all: string; readonly commands: Readonly<Record<string, string>> };
/** Digest of each body, by its name: V8 looks only at a source's length. Replaced by the build. */
declare const DIGESTS: Readonly<Record<string, string>>;
/** What `--version` prints; empty when the body does it. Replaced by the build. */
declare const VERSION_TEXT: string;

/** Whether most runs are over soon. Replaced by the build. */
declare const IS_SHORT: boolean;

/** Global flags that may stand before a command. */
const LEADING_FLAG = /^(-D|--debug|--builder=.*)$/;

/** For so long a short run's functions aren't optimised: compiling them would cost more than it gains. */
const UNOPTIMISED_MS = 500;

function setOptimising(isOn: boolean): void {
  // The cache of a body is only good under the flags that it was made with.
  const { setFlagsFromString } = require("node:v8") as typeof import("node:v8");
  for (const name of ["maglev", "opt"]) setFlagsFromString(isOn ? `--${name}` : `--no-${name}`);
}

function bodyFor(argv: readonly string[]): string {
  let at = 0;
  while (at < argv.length && (argv[at] === "--builder" || LEADING_FLAG.test(argv[at] as string)))
    at += argv[at] === "--builder" ? 2 : 1;
  const command = argv[at] ?? "";
  return Object.hasOwn(BODIES.commands, command) ? (BODIES.commands[command] as string) : BODIES.all;
}

/** The names that a CommonJS module has for granted. */
type Body = (scope: {
  readonly exports: object;
  readonly require: NodeJS.Require;
  readonly module: NodeJS.Module;
  readonly __filename: string;
  readonly __dirname: string;
}) => void;

function runBody(name: string): void {
  if (IS_SHORT) {
    // Node's own cache of its modules fits its own flags only; this one has most that a client needs.
    require("node:net");
    setOptimising(false);
    setTimeout(setOptimising, UNOPTIMISED_MS, true).unref();
  }
  const file = join(__dirname, `${name}.body.cjs`);
  // Bundles are ASCII.
  const source = readFileSync(file, "latin1");
  const cacheFile = join(__dirname, `${name}.${DIGESTS[name]}.cache`);
  const cachedData = readCache(cacheFile);
  const script = new Script(source, {
    filename: file,
    ...(cachedData === undefined ? {} : { cachedData }),
  });
  if (cachedData === undefined || script.cachedDataRejected === true) {
    process.on("exit", (code) => {
      if (code === 0 && !asksForHelp) writeCache(cacheFile, script);
    });
  }
  const body = script.runInThisContext() as Body;
  body({ exports, require, module, __filename: file, __dirname });
}

function readCache(file: string): Buffer | undefined {
  try {
    return readFileSync(file);
  } catch {
    // It's made by the first run that ends well.
    return undefined;
  }
}

/** A cache that can't be written, as in a folder that belongs to somebody else, is done without. */
function writeCache(file: string, script: Script): void {
  const temporary = `${file}.${process.pid}.tmp`;
  if (IS_SHORT) setOptimising(false);
  try {
    // V8 trusts what it reads: all of the file has to be on the disk before it has its name.
    writeFileSync(temporary, script.createCachedData(), { mode: 0o644, flush: true });
    renameSync(temporary, file);
  } catch {
    try {
      unlinkSync(temporary);
    } catch {
      // It was never there.
    }
  }
}

const argv = process.argv.slice(2);
/** A run that shows a help text calls little of what others need. */
const asksForHelp = argv.includes("--help") || argv.includes("-h");
if (VERSION_TEXT !== "" && argv.length === 1 && (argv[0] === "--version" || argv[0] === "-v")) {
  writeSync(1, VERSION_TEXT);
} else runBody(bodyFor(argv));
