import { type Group, Target } from "../fields/target.ts";
import { TARGET_FIELDS, targetFields } from "../fields/target-fields.ts";
import type { BakeFile, BakeHost } from "../host.ts";
import { fail, within } from "../problem.ts";
import { loadProject } from "./project.ts";
import type { ComposeService } from "./service.ts";
import { isMap, type Tree } from "./tree.ts";

const TARGET_NAME = /^[a-zA-Z0-9_-]+$/;

/** Makes targets of the services that are built, and a group of all. */
export function readCompose(
  files: readonly BakeFile[],
  environment: ReadonlyMap<string, string>,
  host: BakeHost,
): { readonly targets: readonly Target[]; readonly groups: readonly Group[] } {
  const project = within("failed to parse compose file", () =>
    loadProject(files, host, { environment, consistent: true }),
  );
  if (!project.hasServices) return { targets: [], groups: [] };
  const targets = project.services.map(targetOf);
  const names = targets.map(({ name }) => name);
  return {
    targets,
    groups: [{ name: "default", description: "", targets: names.length === 0 ? undefined : names }],
  };
}

function targetOf(service: ComposeService): Target {
  const name = service.name.replaceAll(".", "_");
  if (!TARGET_NAME.test(name)) fail(`invalid service name "${name}": only "[a-zA-Z0-9_-]+" are allowed`);
  const target = new Target(name);
  for (const field of TARGET_FIELDS) target.set(field, field.compose?.(service.build));
  const extra = service.extensions.get("x-bake");
  if (isMap(extra)) {
    for (const field of TARGET_FIELDS) {
      const { extension } = field;
      if (extension !== undefined && extra.has(extension.key)) {
        target.set(field, extension.apply(target.get(field), plain(extra.get(extension.key)!)));
      }
    }
  }
  const { image } = service.build;
  if (image !== "" && (target.get(targetFields.tags)?.length ?? 0) === 0)
    target.set(targetFields.tags, [image]);
  return target;
}

/** JavaScript's own kinds of values. */
function plain(value: Tree): unknown {
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value)) return value.map(plain);
  return isMap(value) ? Object.fromEntries([...value].map(([key, item]) => [key, plain(item)])) : value;
}
