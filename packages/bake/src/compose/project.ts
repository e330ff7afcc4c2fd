import { sortedKeys } from "@kiln/hcl";
import type { BakeHost } from "../host.ts";
import { fail } from "../problem.ts";
import { interpolate } from "./interpolate.ts";
import { ComposeLoader, type ComposeSource } from "./loader.ts";
import { checkProject } from "./schema.ts";
import { type ComposeService, readService } from "./service.ts";
import { goText, isMap, mapAt, type Tree, type TreeMap } from "./tree.ts";
import { readYaml } from "./yaml.ts";

/** A Compose project as far as builds need it. */
export interface ComposeProject {
  /** In the order of their names. */
  readonly services: readonly ComposeService[];
  /** False when no service is declared, built or not. */
  readonly hasServices: boolean;
}

/** How to load. */
export interface ComposeOptions {
  readonly environment: ReadonlyMap<string, string>;
  /** Refuse what doesn't fit together, such as secrets that nobody declares. */
  readonly consistent: boolean;
  /** Collects names of variables that count as blank because they aren't set. */
  readonly unset?: Set<string>;
}

const PROJECT_NAME = "COMPOSE_PROJECT_NAME";

/** Loads files as one project. */
export function loadProject(
  sources: readonly ComposeSource[],
  host: BakeHost,
  options: ComposeOptions,
): ComposeProject {
  const environment = new Map(options.environment);
  const { unset = new Set() } = options;
  environment.set(PROJECT_NAME, projectName(sources, environment));
  const loaded = new ComposeLoader(host, unset).load(sources, environment);
  if (loaded.size === 0) fail("empty compose file");
  const model = buildModel(loaded);
  if (model.size === 0) fail("empty compose file");
  checkFinite(model);
  checkProject(model);
  const services = mapAt(model, "services") ?? new Map<string, Tree>();
  const secrets = mapAt(model, "secrets") ?? new Map<string, Tree>();
  const found: ComposeService[] = [];
  for (const name of sortedKeys(services)) {
    const service = services.get(name) as TreeMap;
    const read = readService(name, service, {
      host,
      environment,
      unset,
      secrets: options.consistent ? secrets : withoutExternal(secrets),
    });
    if (read !== undefined) found.push(read);
    if (options.consistent) checkService(name, service, services, secrets);
  }
  if (options.consistent) checkSecrets(secrets);
  return { services: found, hasServices: services.size > 0 };
}

/** External secrets are complained about when targets are made, not while a file is only recognized. */
function withoutExternal(secrets: TreeMap): TreeMap {
  return new Map([...secrets].filter(([, secret]) => !isMap(secret) || !secret.has("external")));
}

function projectName(sources: readonly ComposeSource[], environment: ReadonlyMap<string, string>): string {
  let name = "";
  for (const { data } of sources) {
    try {
      for (const { value } of data === undefined ? [] : readYaml(data)) {
        const given = isMap(value) ? (value.get("name") ?? "") : "";
        if (!isMap(given) && !Array.isArray(given) && given !== "") name = goText(given);
      }
    } catch {
      // The file is read again, and its mistakes told, right after.
    }
  }
  const given = interpolate(new Map([["name", name]]), (key) => environment.get(key)).get("name");
  return (typeof given === "string" && given) || environment.get(PROJECT_NAME) || "bake";
}

const KEPT = ["image", "build", "environment", "env_file"];

/** Only what builds need counts, so that files with newer features can be used. */
function buildModel(loaded: TreeMap): TreeMap {
  const model: TreeMap = new Map();
  const services = mapAt(loaded, "services");
  if (services !== undefined) {
    const kept = [...services].flatMap(([name, service]): [string, Tree][] => {
      if (service === null) return [[name, new Map()]];
      if (!isMap(service)) return [];
      return [[name, new Map([...service].filter(([key]) => KEPT.includes(key)))]];
    });
    model.set("services", new Map(kept));
  }
  if (loaded.has("secrets")) model.set("secrets", loaded.get("secrets")!);
  return model;
}

function checkFinite(value: Tree): void {
  if (typeof value === "number" && !Number.isFinite(value)) {
    fail(`json: unsupported value: ${Number.isNaN(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf"}`);
  }
  if (Array.isArray(value)) value.forEach(checkFinite);
  if (isMap(value)) [...value.values()].forEach(checkFinite);
}

const INVALID = "invalid compose project";

function checkService(name: string, service: TreeMap, services: TreeMap, secrets: TreeMap): void {
  const build = mapAt(service, "build");
  if (build === undefined) {
    if ((service.get("image") ?? "") === "") {
      fail(`service "${name}" has neither an image nor a build context specified: ${INVALID}`);
    }
    return;
  }
  if ((build.get("dockerfile_inline") ?? "") !== "" && (build.get("dockerfile") ?? "") !== "") {
    fail(`service "${name}" declares mutualy exclusive dockerfile and dockerfile_inline: ${INVALID}`);
  }
  for (const [key, value] of mapAt(build, "additional_contexts") ?? []) {
    if (typeof value !== "string" || !value.startsWith("service:")) continue;
    const other = value.slice("service:".length);
    const referred = services.get(other);
    if (referred === undefined)
      fail(`service "${name}" declares unknown service "${other}" as additional contexts ${key}`);
    if (mapAt(referred, "build") === undefined) {
      fail(`service "${name}" declares non-buildable service "${other}" as additional contexts ${key}`);
    }
  }
  const mounts = build.get("secrets");
  for (const mount of Array.isArray(mounts) ? mounts : []) {
    const source = isMap(mount) ? String(mount.get("source") ?? "") : "";
    if (!secrets.has(source))
      fail(`service "${name}" refers to undefined build secret ${source}: ${INVALID}`);
  }
}

function checkSecrets(secrets: TreeMap): void {
  for (const name of sortedKeys(secrets)) {
    const secret = mapAt(secrets, name);
    if (secret?.get("external") === true) continue;
    if (!secret?.get("file") && !secret?.get("environment")) {
      fail(`secret "${name}" must declare either \`file\` or \`environment\`: ${INVALID}`);
    }
  }
}
