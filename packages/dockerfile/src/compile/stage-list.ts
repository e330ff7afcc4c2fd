import { lower } from "../base/go-text.ts";
import type { StageList } from "./context.ts";
import { copyNotes, type StageState } from "./stage-state.ts";

/** Stages in order; a later one hides an earlier one of the same name. */
export class Stages implements StageList {
  readonly #all: StageState[] = [];
  readonly #byName = new Map<string, StageState>();

  get all(): readonly StageState[] {
    return this.#all;
  }

  /** Appends a stage and finds its base among those before it. FROM looks names up as they are written. */
  add(stage: StageState): void {
    this.#all.push(stage);
    const base = this.#byName.get(stage.baseName);
    if (base !== undefined) {
      stage.base = base;
      stage.notes = copyNotes(base.notes);
    }
    if (stage.stage.name !== "") this.#byName.set(lower(stage.stage.name), stage);
  }

  byName(name: string): StageState | undefined {
    return this.#byName.get(lower(name));
  }

  names(): string[] {
    return this.#all.map((stage) => stage.label).filter((name) => name !== "");
  }
}
