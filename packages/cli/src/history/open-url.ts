import { spawn } from "node:child_process";
import { once } from "node:events";
import { BuildError } from "@kiln/base";

const OPENERS = {
  darwin: ["open"],
  linux: ["xdg-open", "x-www-browser", "www-browser"],
} as const;

/**
 * Opens an address with what the desktop has for that.
 *
 * @throws BuildError `not_found` when there is nothing.
 */
export async function openUrl(url: string): Promise<void> {
  const openers = process.platform === "darwin" ? OPENERS.darwin : OPENERS.linux;
  for (const opener of openers) {
    const child = spawn(opener, [url], { detached: true, stdio: "ignore" });
    try {
      await once(child, "spawn");
      child.unref();
      return;
    } catch {
      // not installed: the next one
    }
  }
  throw new BuildError(
    "not_found",
    `exec: ${JSON.stringify(openers.join(","))}: executable file not found in $PATH`,
    {
      hint: `open ${url} yourself`,
    },
  );
}
