/**
 * Bundles the programs into `dist/` and writes the launchers in `bin/`.
 *
 * Every program is one CommonJS file (it starts faster than ESM); each source file named `*-worker.ts` or
 * `*-zygote.ts` becomes a file of its own beside it, where `entryPath` of the package `sys` finds it.
 */
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
import { basename, join, resolve } from "node:path";
import { build, type Plugin } from "esbuild";

const root = join(import.meta.dirname, "..");
/** Where `dist/` and `bin/` go; the launchers look for Node in `node_modules/` beside them. */
const target = resolve(process.argv[2] ?? root);
const dist = join(target, "dist");

/** Program → its source file. */
const PROGRAMS: Readonly<Record<string, string>> = {
  kiln: "packages/cli/src/kiln-main.ts",
  buildctl: "packages/cli/src/buildctl-main.ts",
  kilnd: "packages/daemon/src/kilnd-main.ts",
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

async function bundle(): Promise<void> {
  const fresh = `${dist}.new`;
  rmSync(fresh, { recursive: true, force: true });
  const helpers = globSync("packages/*/src/**/*-{worker,zygote}.ts", { cwd: root });
  const entryPoints = new Map(Object.entries(PROGRAMS));
  for (const file of helpers) {
    const name = basename(file, ".ts");
    if (entryPoints.has(name)) throw new Error(`two programs are named ${name}`);
    entryPoints.set(name, file);
  }
  await build({
    absWorkingDir: root,
    entryPoints: Object.fromEntries(entryPoints),
    outdir: fresh,
    outExtension: { ".js": ".cjs" },
    bundle: true,
    platform: "node",
    format: "cjs",
    target: "node24",
    logLevel: "warning",
    external: ["koffi", "node:*"],
    define: { "import.meta.url": "__importMeta.url" },
    banner: { js: BANNER },
    minifyWhitespace: true,
    minifySyntax: true,
    supported: { using: true },
    plugins: [leanDescriptors],
  });
  for (const name of entryPoints.keys()) makeLazy(join(fresh, `${name}.cjs`));
  // programs that run keep their files until the new ones are there
  const old = `${dist}.old`;
  rmSync(old, { recursive: true, force: true });
  if (existsSync(dist)) renameSync(dist, old);
  renameSync(fresh, dist);
  rmSync(old, { recursive: true, force: true });
}

/** Replaces what loads Node's modules; esbuild reads their exports only where they are used. */
function makeLazy(file: string): void {
  const pattern = new RegExp(`=require\\("node:(${LAZY_MODULES.join("|")})"\\)`, "g");
  writeFileSync(file, readFileSync(file, "utf8").replace(pattern, '=__lazy("node:$1")'));
}

/**
 * A launcher finds its own place through symbolic links, then starts the pinned Node (or the machine's,
 * where that is new enough) with V8's compile cache beside the bundles.
 */
function launcher(program: string): string {
  const aliases = Object.entries(ALIASES)
    .map(([alias, target]) => `  ${alias}) program=${target} ;;`)
    .join("\n");
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
if [ -w "$dist" ]; then
  NODE_COMPILE_CACHE=\${NODE_COMPILE_CACHE:-$dist/compile-cache}
  export NODE_COMPILE_CACHE
fi
for node in "$here"/../node_modules/node-linux-*/bin/node; do
  [ -x "$node" ] && exec "$node" "$dist/$program.cjs" "$@"
done
command -v node >/dev/null || { echo "kiln needs Node 24 or newer: install it, or run make setup" >&2; exit 1; }
exec node "$dist/$program.cjs" "$@"
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
