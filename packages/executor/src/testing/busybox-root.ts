import { chmodSync, copyFileSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const BUSYBOX = "/bin/busybox";
const APPLETS = [
  "sh cat echo ls id env pwd true false sleep ps mount umount mkdir rm ln mv cp touch stat stty tty hostname kill",
  "test head tail wc readlink chmod chown dd grep sed mknod ip ping wget nc find sync printf date",
].flatMap((line) => line.split(" "));

/** Makes a small root file system from the machine's static busybox, and fails clearly where there is none. */
export function makeBusyboxRoot(dir: string): string {
  if (!existsSync(BUSYBOX)) {
    throw new Error(
      `${BUSYBOX} is missing: these tests need a statically linked busybox (package busybox-static)`,
    );
  }
  chmodSync(dir, 0o755);
  for (const name of ["bin", "etc", "tmp", "root"]) mkdirSync(join(dir, name), { recursive: true });
  copyFileSync(BUSYBOX, join(dir, "bin/busybox"));
  for (const applet of APPLETS) symlinkSync("busybox", join(dir, "bin", applet));
  writeFileSync(
    join(dir, "etc/passwd"),
    "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
  );
  writeFileSync(join(dir, "etc/group"), "root:x:0:root\nuser:x:1000:\nextra:x:2000:user\n");
  return dir;
}
