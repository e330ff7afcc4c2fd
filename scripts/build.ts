/**
 * Bundles the programs into `dist/` and writes the launchers in `bin/`.
 *
 * Every program is a short file (`start-program.ts`) and a CommonJS bundle, its body; the command that people wait for
 * most has a body of its own. Each source file named `*-worker.ts` or `*-zygote.ts` becomes a file beside them, where
 * `entryPath` of the package `sys` finds it.
 */
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  globSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, join, relative, resolve } from "node:path";
import { build, type Plugin } from "esbuild";
import { versionText } from "../packages/cli/src/version.ts";

const root = join(import.meta.dirname, "..");
/** Where `dist/` and `bin/` go; the launchers look for Node in `node_modules/` beside them. */
const target = resolve(process.argv[2] ?? root);
const dist = join(target, "dist");

/** A program: its bodies' source files, and what needs no body. */
interface ProgramSource {
  readonly all: string;
  /** Bodies of their own for commands that have to start fast. */
  readonly commands?: Readonly<Record<string, string>>;
  readonly version?: string;
  /** Runs until it's told to end. */
  readonly isDaemon?: boolean;
}

const BUILD_BODY = "packages/cli/src/kiln-build-main.ts";

const PROGRAMS: Readonly<Record<string, ProgramSource>> = {
  kiln: {
    all: "packages/cli/src/kiln-main.ts",
    commands: { build: BUILD_BODY, b: BUILD_BODY },
    version: versionText,
  },
  buildctl: { all: "packages/cli/src/buildctl-main.ts" },
  kilnd: { all: "packages/daemon/src/kilnd-main.ts", isDaemon: true },
};

/** The names under which a launcher is another program. */
const ALIASES: Readonly<Record<string, string>> = {
  buildkitd: "kilnd",
  buildx: "kiln",
  "docker-buildx": "kiln",
};

/** Modules of Node that take long to load: in a bundle each is loaded by the first use of what it exports. */
const LAZY_MODULES = [
  "child_process",
  "crypto",
  "fs/promises",
  "http",
  "http2",
  "https",
  "module",
  "net",
  "readline",
  "sqlite",
  "stream/promises",
  "timers/promises",
  "tls",
  "worker_threads",
  "zlib",
];

/** Before each bundle: `import.meta.url` of the sources means the bundle's own file; modules of Node that wait. */
const BANNER = `const __importMeta={get url(){return require("node:url").pathToFileURL(__filename).href}};
const __lazy=(name)=>{let m;return new Proxy({},{get:(_,key)=>(m??=require(name))[key]})};`;

/** Descriptors of generated code wait until they are used; protobuf-es would build them all at each start. */
const leanDescriptors: Plugin = {
  name: "lean-descriptors",
  setup({ onLoad }) {
    onLoad({ filter: /@bufbuild\/protobuf\/dist\/esm\/codegenv2\/file\.js$/ }, () => ({
      contents: 'export { fileDesc } from "@kiln/api/lean-file";',
      resolveDir: root,
    }));
  },
};

/** Koffi's native part alone, where it fits; see `loadKoffi` of the package `sys`. */
const nativeKoffi: Plugin = {
  name: "native-koffi",
  setup({ onLoad, onResolve }) {
    onResolve({ filter: /^koffi$/ }, ({ path, namespace }) =>
      namespace === "koffi" ? { path, external: true } : { path, namespace: "koffi" },
    );
    onLoad({ filter: /.*/, namespace: "koffi" }, () => ({
      contents: `const { platform, arch } = process;
        const name = "@koromix/koffi-" + platform + "-" + arch + "/" + platform + "_" + arch + "/koffi.node";
        try { module.exports = require(name); } catch { module.exports = require("koffi"); }`,
    }));
  },
};

/**
 * What the sources import when it's needed becomes a bundle of its own; in one bundle esbuild would keep all that it
 * shares with the rest apart, too, and leave nothing out. The modules may hold no state.
 */
function apart(found: Map<string, string>): Plugin {
  return {
    name: "apart",
    setup({ onResolve, resolve: find }) {
      onResolve({ filter: /.*/ }, async ({ kind, path, importer, resolveDir, pluginData }) => {
        if (kind !== "dynamic-import" || pluginData === "found") return undefined;
        const { path: file, errors } = await find(path, {
          kind: "import-statement",
          importer,
          resolveDir,
          pluginData: "found",
        });
        if (errors.length > 0) return { errors };
        const name = relative(root, file)
          .replace(/\.[a-z]+$/, "")
          .replaceAll(/[^a-z0-9]+/gi, "-");
        found.set(name, file);
        return { path: `./${name}.cjs`, external: true };
      });
    },
  };
}

/** Bundles entry points by name into a folder. */
async function bundleInto(
  outdir: string,
  entryPoints: ReadonlyMap<string, string>,
  plugins: readonly Plugin[] = [],
): Promise<void> {
  await build({
    absWorkingDir: root,
    entryPoints: Object.fromEntries(entryPoints),
    outdir,
    outExtension: { ".js": ".cjs" },
    bundle: true,
    platform: "node",
    format: "cjs",
    target: "node24",
    logLevel: "warning",
    external: ["node:*"],
    define: { "import.meta.url": "__importMeta.url" },
    banner: { js: BANNER },
    minifyWhitespace: true,
    minifySyntax: true,
    supported: { using: true, "dynamic-import": false },
    plugins: [leanDescriptors, nativeKoffi, ...plugins],
  });
  for (const name of entryPoints.keys()) makeLazy(join(outdir, `${name}.cjs`));
}

/** Name of a body by its source file. */
function bodyName(source: string): string {
  return basename(source, ".ts").replace(/-main$/, "");
}

async function bundle(): Promise<void> {
  const fresh = `${dist}.new`;
  rmSync(fresh, { recursive: true, force: true });
  const entryPoints = new Map<string, string>();
  for (const file of globSync("packages/*/src/**/*-{worker,zygote}.ts", { cwd: root })) {
    const name = basename(file, ".ts");
    if (entryPoints.has(name)) throw new Error(`two programs are named ${name}`);
    entryPoints.set(name, file);
  }
  const bodies = new Map<string, string>();
  for (const { all, commands } of Object.values(PROGRAMS)) {
    entryPoints.set(`${bodyName(all)}.body`, all);
    for (const source of Object.values(commands ?? {})) bodies.set(`${bodyName(source)}.body`, source);
  }
  await bundleInto(fresh, entryPoints);
  const parts = new Map<string, string>();
  await bundleInto(fresh, bodies, [apart(parts)]);
  await bundleInto(fresh, parts);
  for (const [name, source] of Object.entries(PROGRAMS)) {
    for (const file of new Set([source.all, ...Object.values(source.commands ?? {})]))
      makeBody(join(fresh, `${bodyName(file)}.body.cjs`));
    await bundleStart(fresh, name, source);
  }
  // programs that run keep their files until the new ones are there
  const old = `${dist}.old`;
  rmSync(old, { recursive: true, force: true });
  if (existsSync(dist)) renameSync(dist, old);
  renameSync(fresh, dist);
  rmSync(old, { recursive: true, force: true });
}

function digestOf(file: string): string {
  return createHash("sha256").update(readFileSync(file)).digest("hex").slice(0, 16);
}

/** Makes a bundle the function that `start-program.ts` calls. */
function makeBody(file: string): void {
  const text = readFileSync(file, "utf8");
  writeFileSync(file, `(function({exports,require,module,__filename,__dirname}){${text}\n})`);
}

async function bundleStart(outdir: string, program: string, source: ProgramSource): Promise<void> {
  const commands = Object.entries(source.commands ?? {}).map(([name, file]) => [name, bodyName(file)]);
  const bodies = [bodyName(source.all), ...commands.map(([, body]) => body)];
  const digests = bodies.map((body) => [body, digestOf(join(outdir, `${body}.body.cjs`))]);
  await build({
    absWorkingDir: root,
    entryPoints: ["scripts/start-program.ts"],
    outfile: join(outdir, `${program}.cjs`),
    bundle: true,
    platform: "node",
    format: "cjs",
    target: "node24",
    logLevel: "warning",
    define: {
      BODIES: JSON.stringify({ all: bodyName(source.all), commands: Object.fromEntries(commands) }),
      VERSION_TEXT: JSON.stringify(source.version ?? ""),
      DIGESTS: JSON.stringify(Object.fromEntries(digests)),
      IS_SHORT: String(source.isDaemon !== true),
    },
    minifyWhitespace: true,
    minifySyntax: true,
  });
}

/** Replaces what loads Node's modules; esbuild reads their exports only where they are used. */
function makeLazy(file: string): void {
  const pattern = new RegExp(`=require\\("node:(${LAZY_MODULES.join("|")})"\\)`, "g");
  writeFileSync(file, readFileSync(file, "utf8").replace(pattern, '=__lazy("node:$1")'));
}

/**
 * A launcher finds its own place through symbolic links, then starts the pinned Node (or the machine's,
 * where that is new enough).
 */
function launcher(program: string): string {
  const aliases = Object.entries(ALIASES)
    .map(([alias, target]) => `  ${alias}) program=${target} ;;`)
    .join("\n");
  const daemons = Object.keys(PROGRAMS)
    .filter((name) => PROGRAMS[name]?.isDaemon)
    .join("|");
  return `#!/bin/sh
self=$0
while [ -L "$self" ]; do
  link=$(readlink "$self")
  case $link in /*) self=$link ;; *) self=\${self%/*}/$link ;; esac
done
case $self in */*) here=\${self%/*} ;; *) here=. ;; esac
program=${program}
case \${0##*/} in
${aliases}
esac
KILN_ARGV0=\${0##*/}
export KILN_ARGV0
dist=$here/../dist
case $program in
  # short-lived objects get a dozen MiB instead of four dozen: a daemon stays small, and no slower
  ${daemons}) set -- --max-semi-space-size=4 "$dist/$program.cjs" "$@" ;;
  # a client's few milliseconds need no more threads
  *) set -- --v8-pool-size=1 "$dist/$program.cjs" "$@" ;;
esac
for node in "$here"/../node_modules/node-linux-*/bin/node; do
  [ -x "$node" ] && exec "$node" "$@"
done
command -v node >/dev/null || { echo "kiln needs Node 24 or newer: install it, or run make setup" >&2; exit 1; }
exec node "$@"
`;
}

function writeLaunchers(): void {
  const bin = join(target, "bin");
  mkdirSync(bin, { recursive: true });
  for (const program of Object.keys(PROGRAMS)) {
    const file = join(bin, program);
    writeFileSync(file, launcher(program));
    chmodSync(file, 0o755);
  }
}

await bundle();
writeLaunchers();
