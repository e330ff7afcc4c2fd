import { type FrontendClient, sourceError } from "@kiln/client/frontend";
import { image, local, type SourceMap, type State, scratch, stateFromDefinition } from "@kiln/llb";
import { formatPlatformAll, normalizePlatform, type Platform } from "@kiln/oci";
import type { Text } from "./reader.ts";

/** An image or another file system that a recipe names. */
export interface Found {
  readonly state: State;
  /** The image's config; empty for what is no image. */
  readonly config: ConfigJson;
}

/** What a recipe reads and writes of an image's config. */
export interface ConfigJson {
  readonly config?: {
    readonly Env?: readonly string[] | null;
    readonly WorkingDir?: string;
    readonly [key: string]: unknown;
  };
  readonly history?: readonly object[];
  readonly [key: string]: unknown;
}

/** Where a recipe's sources are found. */
export interface Places {
  readonly client: FrontendClient;
  readonly source: SourceMap;
  readonly platform: Platform;
}

/** Finds what a name stands for: `scratch`, a named context of the client (`--build-context`), or an image. */
export async function findSource(places: Places, name: string, at: Text): Promise<Found> {
  const { client, source, platform } = places;
  if (name === "scratch") return { state: scratch(), config: {} };
  const id = formatPlatformAll(normalizePlatform(platform));
  const context = client.opts.get(`context:${name}::${id}`) ?? client.opts.get(`context:${name}`);
  if (context === undefined) return await findImage(places, name);
  const value = context.slice(context.indexOf(":") + 1);
  switch (context.split(":", 1)[0]) {
    case "docker-image":
      return await findImage(places, value.replace(/^\/\//, ""));
    case "local":
      return {
        state: local(value, {
          sessionId: client.opts.get(`local-sessionid:${value}`) ?? client.sessionId,
          sharedKeyHint: `context:${name}`,
          name: `[context ${name}] load from client`,
        }),
        config: {},
      };
    case "input": {
      const definition = (await client.inputs()).get(value);
      if (definition === undefined) throw sourceError(`there is no input ${value}`, source, [at.range]);
      return { state: stateFromDefinition(definition), config: inputConfig(client, value) };
    }
    default:
      throw sourceError(`recipes can't use contexts of this kind: ${context}`, source, [at.range]);
  }
}

async function findImage({ client, platform }: Places, name: string): Promise<Found> {
  const found = await client.resolveImageConfig(name, {
    platform,
    resolveMode: client.opts.get("image-resolve-mode"),
    logName: `[recipe] load metadata for ${name}`,
  });
  if ("redirect" in found) throw new Error(`a policy replaces ${name} by ${found.redirect}`);
  const config = JSON.parse(new TextDecoder().decode(found.config)) as ConfigJson;
  const pinned = found.digest === undefined ? found.ref : `${found.ref.split("@", 1)[0]}@${found.digest}`;
  return { state: image(pinned, { platform, name: `from ${name}` }).withImageConfig(config), config };
}

/** The image config that comes with an input: base64 in JSON by name of the metadata. */
function inputConfig(client: FrontendClient, name: string): ConfigJson {
  const metadata = client.opts.get(`input-metadata:${name}`);
  if (metadata === undefined) return {};
  const config = (JSON.parse(metadata) as Readonly<Record<string, string>>)["containerimage.config"];
  return config === undefined ? {} : (JSON.parse(Buffer.from(config, "base64").toString()) as ConfigJson);
}
