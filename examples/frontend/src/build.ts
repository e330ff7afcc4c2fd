import {
  checkFrontendCaps,
  type FrontendClient,
  imageResult,
  type ReturnedResult,
} from "@kiln/client/frontend";
import { local, type SourceMap, stateFromDefinition } from "@kiln/llb";
import { formatPlatform, normalizePlatform, type Platform, parsePlatform } from "@kiln/oci";
import { buildRecipe, failWith } from "./build-recipe.ts";
import { parseRecipe, type Recipe } from "./recipe.ts";
import { answerRequest } from "./requests.ts";
import { runTests } from "./run-tests.ts";

const CAPS = ["inputs", "subrequests", "contexts"].map((name) => `moby.buildkit.frontend.${name}`);
const MAX_RECIPE_BYTES = 1 << 20;

/** The recipe frontend: one request from its options to images. */
export async function build(client: FrontendClient): Promise<ReturnedResult> {
  checkFrontendCaps(client.opts, CAPS);
  const { source, vertex } = await loadRecipe(client);
  const { recipe, problems } = parseRecipe(new TextDecoder().decode(source.data));
  const read = (): Recipe => {
    failWith(source, problems);
    return recipe;
  };
  const answer = answerRequest(client.opts.get("requestid"), read);
  if (answer !== undefined) return answer;
  read();
  await warnOfFloatingBase(client, { recipe, source, vertex });
  const platforms = platformsOf(client);
  const images = await Promise.all(
    platforms.map((platform) => buildRecipe(client, { recipe, source, platform })),
  );
  await testNative(client, images, { recipe, source });
  return imageResult(images, platforms.length > 1 || client.opts.get("multi-platform") === "true");
}

/** The recipe, and the vertex that loads it. */
async function loadRecipe(client: FrontendClient): Promise<{ source: SourceMap; vertex: string }> {
  const filename = client.opts.get("filename") ?? "recipe.yaml";
  const name = client.opts.get("dockerfilekey") ?? "dockerfile";
  const input = client.caps.has("frontend.inputs") ? (await client.inputs()).get(name) : undefined;
  const state =
    input === undefined
      ? local(name, {
          sessionId: client.opts.get(`local-sessionid:${name}`) ?? client.sessionId,
          followPaths: [filename],
          sharedKeyHint: name,
          name: `[recipe] load ${filename}`,
        })
      : stateFromDefinition(input);
  const definition = state.marshal({ platform: client.defaultPlatform, caps: client.llbCaps });
  const { ref } = await client.solve({ definition });
  const size = (await ref?.statFile(filename))?.size ?? 0;
  if (size > MAX_RECIPE_BYTES) throw new Error(`${filename} is larger than ${MAX_RECIPE_BYTES} bytes`);
  const data = (await ref?.readFile(filename)) ?? new Uint8Array();
  const vertex = [...definition.metadata.keys()][0] ?? "";
  return { source: { filename, language: "YAML", data, definition }, vertex };
}

/** A base without tag and digest is another one tomorrow. */
async function warnOfFloatingBase(
  client: FrontendClient,
  at: { readonly recipe: Recipe; readonly source: SourceMap; readonly vertex: string },
): Promise<void> {
  const { from } = at.recipe;
  if (from === undefined || from.value === "scratch" || /[:@$]/.test(from.value.replace(/^.*\//, ""))) return;
  if (client.opts.has(`context:${from.value}`) || !client.caps.has("gateway.warnings")) return;
  await client.warn(at.vertex, `FloatingBase: ${from.value} has no tag (line ${from.range.start.line})`, {
    detail: [new TextEncoder().encode("A base image should have a tag or a digest")],
    source: at.source,
    ranges: [from.range],
  });
}

function platformsOf(client: FrontendClient): readonly Platform[] {
  const own = client.workers[0]?.platforms[0] ?? client.defaultPlatform;
  const list = client.opts.get("platform") ?? "";
  return list === "" ? [own] : list.split(",").map((text) => parsePlatform(text, own));
}

async function testNative(
  client: FrontendClient,
  images: readonly Awaited<ReturnType<typeof buildRecipe>>[],
  at: { readonly recipe: Recipe; readonly source: SourceMap },
): Promise<void> {
  const own = formatPlatform(normalizePlatform(client.workers[0]?.platforms[0] ?? client.defaultPlatform));
  const image = images.find(({ platform }) => formatPlatform(normalizePlatform(platform)) === own);
  if (image === undefined) return;
  const { config } = image.config as { config?: { Env?: readonly string[]; WorkingDir?: string } };
  await runTests(client, { ref: image.ref, env: config?.Env ?? [], cwd: config?.WorkingDir || "/" }, at);
}
