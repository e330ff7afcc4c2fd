import { lower } from "../base/go-text.ts";
import type { CompileContext } from "./context.ts";
import type { NamedContext, NamedContextOptions } from "./host.ts";

/** A named context; `scratch` and `context` can't be replaced. */
export function namedContextFor(
  context: CompileContext,
  name: string,
  options: NamedContextOptions,
): NamedContext | undefined {
  const key = lower(name);
  if (key === "scratch" || key === "context") return undefined;
  return context.host.namedContext(name, {
    ...options,
    platform: options.platform ?? context.settings.targetPlatform,
  });
}
