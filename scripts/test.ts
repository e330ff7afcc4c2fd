/** Runs the unit tests below the given folders (default: all packages and scripts). */
import { spawnSync } from "node:child_process";
import { globSync } from "node:fs";

const folders = process.argv.slice(2).filter((arg) => !arg.startsWith("-"));
const flags = process.argv.slice(2).filter((arg) => arg.startsWith("-"));
const roots = folders.length > 0 ? folders : ["packages", "scripts"];
const files = roots.flatMap((root) =>
  root.endsWith(".test.ts") ? [root] : globSync(`${root}/**/*.test.ts`, { exclude: ["**/node_modules/**"] }),
);
if (files.length === 0) {
  console.error(`no test files below ${roots.join(", ")}`);
  process.exit(1);
}
const result = spawnSync(process.execPath, ["--test", "--test-concurrency=2", ...flags, ...files.sort()], {
  stdio: "inherit",
});
process.exit(result.status ?? 1);
