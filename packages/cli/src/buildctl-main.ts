/** `buildctl`: BuildKit's low-level client. */
import { exitWith } from "./exit.ts";
import { REVISION, VERSION } from "./version.ts";

async function main(argv: readonly string[]): Promise<void> {
  if (argv.length === 1 && /^--?v(ersion)?$/.test(argv[0] as string)) {
    process.stdout.write(`buildctl kiln ${VERSION} ${REVISION}\n`);
    return;
  }
  const { runBuildctl } = await import("./buildctl/buildctl.ts");
  await exitWith(await runBuildctl(argv));
}

void main(process.argv.slice(2));
