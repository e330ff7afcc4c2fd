import { cut, fail } from "../problem.ts";
import { goText, goType, isMap, mapAt, pathText, type Tree, type TreeMap, type TreePath } from "./tree.ts";

type Change = (value: Tree, path: TreePath) => Tree;

function changeAll(map: TreeMap, changes: ReadonlyMap<string, Change>, path: TreePath): TreeMap {
  return new Map(
    [...map].map(([key, value]) => {
      const change = changes.get(key);
      return [key, change === undefined ? value : change(value, [...path, key])];
    }),
  );
}

const keyValues: Change = (value, path) => {
  if (isMap(value)) return value;
  if (!Array.isArray(value)) return fail(`${pathText(path)}: invalid type ${goType(value)}`);
  return new Map(
    value.map((item): [string, Tree] => {
      const [key, rest] = cut(goText(item), "=");
      return [key, rest ?? fail(`${pathText(path)}: invalid value ${goText(item)}, expected key=value`)];
    }),
  );
};

const sshKeys: Change = (value, path) => {
  if (isMap(value)) return value;
  if (!Array.isArray(value)) return fail(`${pathText(path)}: invalid type ${goType(value)} for ssh`);
  return new Map(
    value.map((item): [string, Tree] => {
      if (typeof item !== "string") fail(`invalid ssh key type ${goType(item)}`);
      const [id, place] = cut(item, "=");
      if (place === undefined && id !== "default") fail(`invalid ssh key "${item}"`);
      return [id, place ?? null];
    }),
  );
};

const secretMounts: Change = (value, path) =>
  Array.isArray(value)
    ? value.map((item) => {
        if (isMap(item)) return item;
        if (typeof item === "string") return new Map<string, Tree>([["source", item]]);
        return fail(`${pathText([...path, "[]"])}: unsupported type ${goType(item)}`);
      })
    : value;

const ulimits: Change = (value, path) => {
  if (Array.isArray(value) && value.length > 0) {
    fail(`${pathText([...path, "[]"])}: invalid type ${goType(value[0])} for external`);
  }
  if (!isMap(value)) return value;
  for (const [name, item] of value) {
    if (!isMap(item) && typeof item !== "bigint") {
      fail(`${pathText([...path, name])}: invalid type ${goType(item)} for external`);
    }
  }
  return value;
};

const texts: Change = (value) => (typeof value === "string" ? value : goText(value));

const BUILD_CHANGES: ReadonlyMap<string, Change> = new Map([
  ["additional_contexts", keyValues],
  ["ssh", sshKeys],
  ["secrets", secretMounts],
  ["ulimits", ulimits],
  ["provenance", texts],
  ["sbom", texts],
]);

const build: Change = (value, path) => {
  if (typeof value === "string") return new Map([["context", value]]);
  if (!isMap(value)) return fail(`${pathText(path)}: invalid type ${goType(value)} for build`);
  return changeAll(value, BUILD_CHANGES, path);
};

const envFiles: Change = (value, path) => {
  const entry = (item: Tree): Tree => {
    if (typeof item === "string")
      return new Map<string, Tree>([
        ["path", item],
        ["required", true],
      ]);
    if (!isMap(item)) return null;
    return new Map<string, Tree>([["required", true], ...item]);
  };
  if (typeof value === "string") return [entry(value)];
  return Array.isArray(value)
    ? value.map(entry)
    : fail(`${pathText(path)}: invalid type ${goType(value)} for env_file`);
};

const extension: Change = (value, path) => {
  if (isMap(value)) return value;
  return typeof value === "string"
    ? new Map([["service", value]])
    : fail(`${pathText(path)}: invalid type ${goType(value)} for extends`);
};

const SERVICE_CHANGES: ReadonlyMap<string, Change> = new Map([
  ["build", build],
  ["env_file", envFiles],
  ["extends", extension],
]);

function external(resource: TreeMap, path: TreePath): TreeMap {
  const given = resource.get("external");
  if (!isMap(given)) return resource;
  const out: TreeMap = new Map([...resource, ["external", true]]);
  const name = given.get("name");
  if (name === undefined) return out;
  if (!resource.has("name")) out.set("name", name);
  else if (resource.get("name") !== name)
    fail(`${pathText(path)}: name and external.name conflict; only use name`);
  return out;
}

/** Brings the short forms of a file into the long ones. */
export function canonical(file: TreeMap): TreeMap {
  const out: TreeMap = new Map(file);
  const services = mapAt(file, "services");
  if (services !== undefined) {
    const changed = [...services].map(([name, service]): [string, Tree] => [
      name,
      isMap(service) ? changeAll(service, SERVICE_CHANGES, ["services", name]) : service,
    ]);
    out.set("services", new Map(changed));
  }
  const secrets = mapAt(file, "secrets");
  if (secrets !== undefined) {
    const changed = [...secrets].map(([name, secret]): [string, Tree] => [
      name,
      isMap(secret) ? external(secret, ["secrets", name]) : secret,
    ]);
    out.set("secrets", new Map(changed));
  }
  return out;
}

/** Builds without a context have `.`. */
export function withDefaults(file: TreeMap): TreeMap {
  return changeServices(file, (service) => {
    const given = service.get("build");
    return isMap(given) && !given.has("context")
      ? new Map([...service, ["build", new Map([...given, ["context", "."]])]])
      : service;
  });
}

/** A file with each of its services changed. */
export function changeServices(file: TreeMap, change: (service: TreeMap, name: string) => Tree): TreeMap {
  const services = mapAt(file, "services");
  if (services === undefined) return file;
  const changed = [...services].map(([name, service]): [string, Tree] => [
    name,
    isMap(service) ? change(service, name) : service,
  ]);
  return new Map([...file, ["services", new Map(changed)]]);
}
