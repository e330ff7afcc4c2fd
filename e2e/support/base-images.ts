import {
  chmodSync,
  copyFileSync,
  existsSync,
  globSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { must } from "./run.ts";

/** Kept between runs: making a Debian root file system takes a minute or more. */
const CACHE = join(import.meta.dirname, "..", "..", ".tmp", "e2e");
const DEBIAN_TIMEOUT_MS = 600_000;
/** Part of the cached file's name: changes when the packages do. */
const DEBIAN_PACKAGES = ["libatomic1"];

/** Pushes an image with the machine's static busybox as `library/busybox:latest`. */
export async function pushBusybox(folder: string, host: string): Promise<void> {
  const root = join(folder, "busybox-root");
  const busybox = ["/bin/busybox", "/usr/bin/busybox"].find((path) => existsSync(path));
  if (busybox === undefined) throw new Error("no busybox: install the package busybox-static");
  for (const name of ["bin", "etc", "tmp", "root", "home/app", "var/www", "usr/local/bin"]) {
    mkdirSync(join(root, name), { recursive: true });
  }
  chmodSync(join(root, "tmp"), 0o1777);
  copyFileSync(busybox, join(root, "bin/busybox"));
  for (const applet of (await must(busybox, ["--list"])).trim().split("\n")) {
    if (applet !== "busybox") symlinkSync("busybox", join(root, "bin", applet));
  }
  writeFileSync(
    join(root, "etc/passwd"),
    "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nwww:x:33:33::/var/www:/bin/sh\n",
  );
  writeFileSync(join(root, "etc/group"), "root:x:0:\napp:x:1000:\nwww:x:33:\n");
  const tar = join(folder, "busybox.tar");
  await must("tar", ["-C", root, "--numeric-owner", "-cf", tar, "."]);
  await pushTar(folder, tar, { host, name: "library/busybox", config: ["--config.cmd", "sh"] });
  rmSync(root, { recursive: true });
}

/** Pushes a Debian root file system made by mmdebstrap as `library/debian:stable-slim`. */
export async function pushDebian(folder: string, host: string): Promise<void> {
  const layout = await cachedDebianLayout(folder);
  await pushLayout(`${layout}:image`, `${host}/library/debian:stable-slim`);
}

interface TarImage {
  readonly host: string;
  readonly name: string;
  readonly config: readonly string[];
}

async function pushTar(folder: string, tar: string, image: TarImage): Promise<void> {
  const layout = join(folder, "layout");
  await makeLayout(layout, tar, image.config);
  await pushLayout(`${layout}:image`, `${image.host}/${image.name}:latest`);
  rmSync(layout, { recursive: true });
  rmSync(tar);
}

async function makeLayout(layout: string, tar: string, config: readonly string[]): Promise<void> {
  await must("umoci", ["init", "--layout", layout]);
  await must("umoci", ["new", "--image", `${layout}:image`]);
  await must("umoci", ["raw", "add-layer", "--image", `${layout}:image`, tar], { timeoutMs: 300_000 });
  const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  await must("umoci", ["config", "--image", `${layout}:image`, "--config.env", path, ...config]);
}

async function pushLayout(from: string, to: string): Promise<void> {
  const args = ["--insecure-policy", "copy", "--dest-tls-verify=false", `oci:${from}`, `docker://${to}`];
  await must("skopeo", args, { timeoutMs: 300_000 });
}

/** The suite of the machine's own Debian, else the stable one. */
function debianSuite(): string {
  const release = existsSync("/etc/os-release") ? readFileSync("/etc/os-release", "utf8") : "";
  const codename = /^VERSION_CODENAME=(\w+)$/m.exec(release)?.[1];
  return /^ID=debian$/m.test(release) && codename !== undefined ? codename : "stable";
}

async function cachedDebianLayout(folder: string): Promise<string> {
  const suite = debianSuite();
  const layout = join(CACHE, ["debian", suite, process.arch, ...DEBIAN_PACKAGES].join("-"));
  mkdirSync(CACHE, { recursive: true });
  const lock = `${layout}.lock`;
  // Test files run side by side: the first one makes it, the others wait.
  for (;;) {
    if (existsSync(layout)) return layout;
    if (await takeLock(lock)) break;
    await must("sleep", ["1"]);
  }
  try {
    if (!existsSync(layout)) await makeDebianLayout(folder, suite, layout);
  } finally {
    rmSync(lock, { force: true });
  }
  return layout;
}

/** A lock file names its owner's pid; one whose owner has ended counts for nothing. */
async function takeLock(file: string): Promise<boolean> {
  try {
    writeFileSync(file, String(process.pid), { flag: "wx" });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
  const owner = existsSync(file) ? readFileSync(file, "utf8") : "";
  if (owner !== "" && !existsSync(`/proc/${owner}`)) rmSync(file, { force: true });
  return false;
}

async function makeDebianLayout(folder: string, suite: string, layout: string): Promise<void> {
  const tar = join(folder, "debian.tar");
  const sources = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"].find(
    (file) => existsSync(file) && readFileSync(file, "utf8").trim() !== "",
  );
  const settings = globSync("/etc/apt/apt.conf.d/*")
    .filter((file) => /^\s*Acquire::/m.test(readFileSync(file, "utf8")))
    .map((file) => `--aptopt=${file}`);
  const args = ["--variant=minbase", "--mode=root", `--include=${DEBIAN_PACKAGES.join(",")}`, ...settings];
  const cleanups = ["/var/cache/apt/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*"];
  args.push(...cleanups.map((path) => `--customize-hook=rm -rf "$1"${path}`));
  const mirror = sources === undefined || debianSuite() === "stable" ? [] : [sources];
  await must("mmdebstrap", [...args, suite, tar, ...mirror], { timeoutMs: DEBIAN_TIMEOUT_MS });
  await makeLayout(`${layout}.new`, tar, ["--config.cmd", "bash"]);
  renameSync(`${layout}.new`, layout);
  rmSync(tar);
}
