import { decodeSource, sortedKeys } from "@kiln/hcl";
import type { BakeHost } from "../host.ts";
import { absolutePath, dirName, joinPath, relativePath } from "../paths.ts";
import { fail, within } from "../problem.ts";
import { canonical, withDefaults } from "./canonical.ts";
import { parseDotEnv } from "./dotenv.ts";
import { interpolate } from "./interpolate.ts";
import { enforceUnicity, mergeMappings, mergeTrees } from "./merge.ts";
import { resolvePlaces } from "./places.ts";
import { type Lookup, notingLookup } from "./template.ts";
import { cloneTree, isMap, mapAt, pathMatches, type Tree, type TreeMap, type TreePath } from "./tree.ts";
import { readYaml } from "./yaml.ts";

/** A Compose file; its text is read from the host when it isn't given. */
export interface ComposeSource {
  readonly name: string;
  readonly data?: Uint8Array;
}

interface Ref {
  readonly file: string;
  readonly service: string;
}

interface Project {
  /** Where relative paths of the project start. */
  readonly directory: string;
  /** Where files that it names are looked for. */
  readonly files: string;
  readonly environment: ReadonlyMap<string, string>;
}

interface Base {
  readonly services: TreeMap;
  readonly cleared: readonly TreePath[];
}

const MAX_INCLUDES = 100;

/** Loads the files of one project into a single model, with everything that they include and extend. */
export class ComposeLoader {
  readonly #host: BakeHost;

  readonly unset: Set<string>;

  /** `unset` gets the names of variables that files use and that aren't set. */
  constructor(host: BakeHost, unset: Set<string>) {
    this.#host = host;
    this.unset = unset;
  }

  /** The merged model. */
  load(sources: readonly ComposeSource[], environment: ReadonlyMap<string, string>): TreeMap {
    return this.#model(sources, { directory: "", files: "", environment }, []);
  }

  #model(sources: readonly ComposeSource[], project: Project, included: readonly string[]): TreeMap {
    let model: TreeMap = new Map();
    for (const source of sources)
      model = new FileLoader(this.#host, this, source, project).into(model, included);
    const complete = resolvePlaces(withDefaults(model), project.directory, () => this.#host.homeDir());
    return resolveEnvironment(complete, project.environment);
  }

  /** Puts what `include` names into the model of the file that includes it. */
  include(
    model: TreeMap,
    project: Project,
    included: readonly string[],
    cleared: readonly TreePath[],
  ): TreeMap {
    const given = model.get("include") ?? null;
    if (given === null) return model;
    if (!Array.isArray(given)) fail(`\`include\` must be a list, got ${String(given)}`);
    let out: TreeMap = new Map(model);
    out.delete("include");
    for (const entry of given) {
      const imported = this.#included(isMap(entry) ? entry : new Map([["path", entry]]), project, included);
      for (const key of ["services", "volumes", "networks", "secrets", "configs", "models"]) {
        out = importResources(imported, out, key, cleared);
      }
    }
    return out;
  }

  #included(entry: TreeMap, project: Project, included: readonly string[]): TreeMap {
    if (included.length > MAX_INCLUDES) fail("include: too many nested files");
    const paths = textList(entry.get("path")).map((path) =>
      path.startsWith("/") ? path : joinPath(project.files, path),
    );
    const main = paths[0] ?? "";
    const given = entry.get("project_directory");
    const { directory, files } = projectDirectory(main, typeof given === "string" ? given : "", project);
    if (included.includes(main)) {
      fail(
        `include cycle detected:\n${included[0]}\n include ${[...included.slice(1), main].join("\n include ")}`,
      );
    }
    const environment = new Map([
      ...this.#envFiles(textList(entry.get("env_file")), files, project),
      ...project.environment,
    ]);
    return this.#model(
      paths.map((name) => ({ name })),
      { directory, files, environment },
      included,
    );
  }

  #envFiles(names: readonly string[], files: string, project: Project): Map<string, string> {
    const fallback = joinPath(files, ".env");
    const standard = this.#host.stat(fallback)?.kind === "file" ? [fallback] : [];
    const wanted = names.length === 0 ? standard : names.filter((name) => name !== "/dev/null");
    const out = new Map<string, string>();
    for (const name of wanted) {
      const path = names.length === 0 || name.startsWith("/") ? name : joinPath(project.directory, name);
      const data = this.#host.readFile(path) ?? fail(`stat ${path}: no such file or directory`);
      const absolute = absolutePath(path, this.#host.cwd);
      within(`failed to read ${absolute}`, () =>
        parseDotEnv(
          decodeSource(data),
          out,
          notingLookup((key) => project.environment.get(key) ?? out.get(key), this.unset),
        ),
      );
    }
    return out;
  }
}

function projectDirectory(
  main: string,
  given: string,
  project: Project,
): { readonly directory: string; readonly files: string } {
  if (given.startsWith("/")) return { directory: given, files: given };
  if (given === "") {
    const files = dirName(main);
    return { directory: relativeDirectory(project.files, files), files };
  }
  return {
    directory: relativeDirectory(project.files, joinPath(project.files, given)),
    files: joinPath(project.directory, given),
  };
}

/** A directory as it looks from another; both may be relative to the working directory. */
function relativeDirectory(from: string, to: string): string {
  if (from.startsWith("/") === to.startsWith("/")) return relativePath(`/${from}`, `/${to}`);
  return to;
}

function textList(value: Tree | undefined): string[] {
  if (typeof value === "string") return [value];
  return Array.isArray(value) ? value.map(String) : [];
}

function importResources(
  source: TreeMap,
  target: TreeMap,
  key: string,
  cleared: readonly TreePath[],
): TreeMap {
  const from = mapAt(source, key);
  if (from === undefined) return target;
  const into: TreeMap = new Map(mapAt(target, key) ?? []);
  for (const [name, value] of from) {
    const conflict = into.get(name);
    if (conflict === undefined) {
      into.set(name, value);
      continue;
    }
    const base = clear(new Map([[key, new Map([[name, value]])]]), cleared);
    into.set(name, mergeTrees(mapAt(base, key)?.get(name) ?? null, conflict, [key, name]));
  }
  return new Map([...target, [key, into]]);
}

/** Forgets what `!reset` and `!override` of a later file clear. */
function clear(model: TreeMap, cleared: readonly TreePath[]): TreeMap {
  if (cleared.length === 0) return model;
  const walk = (value: Tree, path: TreePath): Tree => {
    if (Array.isArray(value)) return value.map((item, i) => walk(item, [...path, String(i)]));
    if (!isMap(value)) return value;
    const kept = [...value].filter(([key]) => !cleared.some((place) => pathMatches([...path, key], place)));
    return new Map(kept.map(([key, item]) => [key, walk(item, [...path, key])]));
  };
  return walk(model, []) as TreeMap;
}

/** Loads one file into a model. */
class FileLoader {
  readonly #host: BakeHost;
  readonly #loader: ComposeLoader;
  readonly #source: ComposeSource;
  readonly #project: Project;
  readonly #lookup: Lookup;
  readonly #bases = new Map<string, Base>();

  constructor(host: BakeHost, loader: ComposeLoader, source: ComposeSource, project: Project) {
    this.#host = host;
    this.#loader = loader;
    this.#source = source;
    this.#project = project;
    this.#lookup = notingLookup((name) => project.environment.get(name), loader.unset);
  }

  into(model: TreeMap, included: readonly string[]): TreeMap {
    const { name } = this.#source;
    let out = model;
    for (const { value, cleared, problem } of this.#documents(this.#source)) {
      if (problem !== undefined) fail(problem);
      const own = interpolate(requireMapping(value), this.#lookup);
      const complete = this.#loader.include(own, this.#project, [...included, name], cleared);
      const extended = this.#extendAll(complete, cleared);
      const merged = enforceUnicity(mergeMappings(clear(out, cleared), extended, []));
      merged.delete("version");
      out = enforceUnicity(canonical(merged));
    }
    return out;
  }

  #documents({ name, data }: ComposeSource): ReturnType<typeof readYaml> {
    const bytes = data ?? this.#host.readFile(name) ?? fail(`open ${name}: no such file or directory`);
    return within(`failed to parse ${name}`, () => readYaml(bytes));
  }

  #extendAll(model: TreeMap, cleared: readonly TreePath[]): TreeMap {
    const given = model.get("services");
    if (given === undefined) return model;
    if (!isMap(given)) fail("services must be a mapping");
    const services: TreeMap = new Map(given);
    for (const name of sortedKeys(services)) {
      services.set(
        name,
        this.#extend({ file: this.#source.name, service: name }, { services, cleared }, []) ?? null,
      );
    }
    return new Map([...model, ["services", services]]);
  }

  #extend(ref: Ref, from: Base, visited: readonly Ref[]): Tree | undefined {
    const service = from.services.get(ref.service) ?? null;
    if (service === null) return null;
    if (!isMap(service)) fail(`services.${ref.service} must be a mapping`);
    const given = service.get("extends");
    if (given === undefined) return service;
    const parent = isMap(given) ? given.get("service") : (given ?? "");
    if (typeof parent !== "string") fail(`extends.${ref.service}.service is required`);
    const file = isMap(given) ? given.get("file") : undefined;
    const base = typeof file === "string" ? this.#baseFrom(ref, parent, file) : from;
    if (!base.services.has(parent)) {
      fail(`cannot extend service "${ref.service}" in ${ref.file}: service "${parent}" not found`);
    }
    const name = typeof file === "string" ? file : ref.file;
    const step = { file: name, service: ref.service };
    checkCircle(visited, step);
    const source = this.#extend({ file: name, service: parent }, base, [...visited, step]) ?? null;
    if (source === null) return service;
    const cleaned = clear(new Map([["services", new Map([[ref.service, cloneTree(source)]])]]), from.cleared);
    const merged = mergeTrees(mapAt(cleaned, "services")?.get(ref.service) ?? new Map(), service, [
      "services",
      "x",
    ]) as TreeMap;
    merged.delete("extends");
    from.services.set(ref.service, merged);
    return merged;
  }

  #baseFrom(ref: Ref, parent: string, file: string): Base {
    const path = file.startsWith("/") ? file : joinPath(this.#project.files, file);
    const base = this.#bases.get(path) ?? this.#loadBase(ref, path);
    this.#bases.set(path, base);
    if (!base.services.has(parent)) {
      fail(`cannot extend service "${ref.service}" in ${ref.file}: service "${parent}" not found in ${file}`);
    }
    return { services: new Map(base.services), cleared: base.cleared };
  }

  #loadBase(ref: Ref, path: string): Base {
    let model: TreeMap = new Map();
    let last: readonly TreePath[] = [];
    for (const { value, cleared, problem } of this.#documents({ name: path })) {
      if (problem !== undefined) fail(problem);
      const own = interpolate(requireMapping(value), this.#lookup);
      model = enforceUnicity(canonical(enforceUnicity(mergeMappings(clear(model, cleared), own, []))));
      last = cleared;
    }
    const where = `cannot extend service "${ref.service}" in ${path}`;
    if (!model.has("services")) fail(`${where}: no services section`);
    const directory = relativeDirectory(this.#project.files, dirName(path));
    const services = mapAt(
      resolvePlaces(model, directory, () => this.#host.homeDir()),
      "services",
    );
    return { services: services ?? fail(`${where}: services must be a mapping`), cleared: last };
  }
}

function requireMapping(value: Tree): TreeMap {
  return isMap(value) ? value : fail("top-level object must be a mapping");
}

function checkCircle(visited: readonly Ref[], step: Ref): void {
  if (!visited.some(({ file, service }) => file === step.file && service === step.service)) return;
  const [first, ...others] = [...visited, step];
  const lines = others.map(({ file, service }) => `  extends ${service} in ${file}`);
  fail(["Circular reference:", `  ${first?.service} in ${first?.file}`, ...lines].join("\n"));
}

/** Gives variables that a service only names their values. */
function resolveEnvironment(model: TreeMap, environment: ReadonlyMap<string, string>): TreeMap {
  const services = mapAt(model, "services");
  if (services === undefined) return model;
  const changed = [...services].map(([name, service]): [string, Tree] => {
    const given = isMap(service) ? service.get("environment") : undefined;
    if (!isMap(service) || !Array.isArray(given)) return [name, service];
    const values = given
      .filter((item) => typeof item === "string")
      .map((item) => (environment.has(item) ? `${item}=${environment.get(item)}` : item));
    return [name, new Map([...service, ["environment", values]])];
  });
  return new Map([...model, ["services", new Map(changed)]]);
}
