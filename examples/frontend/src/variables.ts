import type { Problem, Text } from "./reader.ts";
import { nearest } from "./reader.ts";
import type { Recipe } from "./recipe.ts";

/** Replaces `${NAME}` by build arguments; `$${` is a plain `${`. What isn't known goes to `problems`. */
export class Variables {
  readonly problems: Problem[] = [];
  readonly #values = new Map<string, string>();

  constructor(recipe: Recipe, opts: ReadonlyMap<string, string>, platform: ReadonlyMap<string, string>) {
    for (const [name, value] of platform) this.#values.set(name, value);
    for (const { name, value, at } of recipe.args) {
      const given = opts.get(`build-arg:${name}`) ?? value;
      if (given !== undefined) this.#values.set(name, given);
      else this.problems.push({ message: `the argument ${name} has to be given`, range: at.range });
    }
  }

  expand(text: Text): string {
    return text.value.replace(/(\$?)\$\{([^}]*)\}/g, (all: string, dollar: string, name: string) => {
      if (dollar !== "") return all.slice(1);
      const value = this.#values.get(name);
      if (value !== undefined) return value;
      const near = nearest(name, this.#values.keys());
      const hint = near === undefined ? "" : ` (did you mean ${near}?)`;
      this.problems.push({ message: `unknown argument ${name}${hint}`, range: text.range });
      return "";
    });
  }
}
