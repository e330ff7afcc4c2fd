import { joinPath } from "../paths.ts";
import { changeServices } from "./canonical.ts";
import { isMap, mapAt, type Tree, type TreeMap } from "./tree.ts";

const REMOTE = ["https://", "http://", "git://", "ssh://", "github.com/", "git@", "service:"];

type Place = (value: Tree) => Tree;

function changeMember(map: TreeMap, key: string, place: Place): TreeMap {
  const value = map.get(key);
  return value === undefined ? map : new Map([...map, [key, place(value)]]);
}

function each(place: Place): Place {
  return (value) => {
    if (Array.isArray(value)) return value.map(place);
    return isMap(value) ? new Map([...value].map(([key, item]) => [key, place(item)])) : value;
  };
}

/** Makes relative paths of a file start where its project does. */
export function resolvePlaces(file: TreeMap, base: string, homeDir: () => string): TreeMap {
  const plain: Place = (value) => {
    if (typeof value !== "string" || value === "") return value;
    const path = value.startsWith("~") ? joinPath(homeDir(), value.slice(1)) : value;
    return path.startsWith("/") ? path : joinPath(base, path);
  };
  const context: Place = (value) =>
    typeof value === "string" && (value.includes("://") || REMOTE.some((prefix) => value.startsWith(prefix)))
      ? value
      : plain(value);
  const memberPlace =
    (key: string, place: Place): Place =>
    (value) =>
      isMap(value) ? changeMember(value, key, place) : value;
  const build: Place = (value) => {
    if (!isMap(value)) return value;
    const withContext = changeMember(value, "context", context);
    return changeMember(changeMember(withContext, "additional_contexts", each(context)), "ssh", each(plain));
  };
  const services = changeServices(file, (service) => {
    const built = changeMember(service, "build", build);
    const withFiles = changeMember(built, "env_file", each(memberPlace("path", plain)));
    return changeMember(withFiles, "extends", memberPlace("file", plain));
  });
  const secrets = mapAt(services, "secrets");
  return secrets === undefined
    ? services
    : new Map([...services, ["secrets", each(memberPlace("file", plain))(secrets)]]);
}
