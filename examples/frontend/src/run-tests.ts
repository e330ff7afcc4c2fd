import { type FrontendClient, type GatewayRef, sourceError } from "@kiln/client/frontend";
import type { SourceMap } from "@kiln/llb";
import type { Recipe } from "./recipe.ts";

/** Characters of a failed test's output that the error repeats. */
const MAX_OUTPUT = 2000;

/**
 * Runs the commands of `test`, each in a container of the finished image; what they change is thrown away.
 *
 * @throws BuildError with the place and the output of the first that fails.
 */
export async function runTests(
  client: FrontendClient,
  image: { readonly ref: GatewayRef | undefined; readonly env: readonly string[]; readonly cwd: string },
  { recipe, source }: { readonly recipe: Recipe; readonly source: SourceMap },
): Promise<void> {
  if (recipe.tests.length === 0 || image.ref === undefined) return;
  for (const test of recipe.tests) {
    // A container ends with its first process.
    await using container = await client.newContainer({ mounts: [{ dest: "/", ref: image.ref }] });
    const { exitCode, stdout, stderr } = await container.run({
      args: ["/bin/sh", "-ec", test.value],
      env: image.env,
      cwd: image.cwd,
    });
    if (exitCode === 0) continue;
    const output = (Buffer.from(stdout).toString() + Buffer.from(stderr).toString()).slice(-MAX_OUTPUT);
    throw sourceError(`test failed with exit code ${exitCode}: ${test.value}\n${output}`.trimEnd(), source, [
      test.range,
    ]);
  }
}
