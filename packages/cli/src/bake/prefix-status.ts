import type { SolveStatus, VertexUpdate } from "@kiln/progress";

/**
 * Brings the messages of several builds into one display: the target's name is put into every step's name, and a
 * step that builds share is heard from one of them only.
 */
export class StatusMerger {
  readonly #onStatus: (status: SolveStatus) => void;
  readonly #logSource = new Map<string, string>();

  constructor(onStatus: (status: SolveStatus) => void) {
    this.#onStatus = onStatus;
  }

  /** The sink for one target's messages; without `prefixes` names stay as they are. */
  forTarget(target: string, prefixes: boolean): (status: SolveStatus) => void {
    if (!prefixes) return this.#onStatus;
    return (status) =>
      this.#onStatus({
        ...status,
        vertexes: status.vertexes.map((vertex) => withPrefix(vertex, target)),
        logs: status.logs.filter(({ vertex }) => this.#isSource(vertex, target)),
      });
  }

  #isSource(digest: string, target: string): boolean {
    const source = this.#logSource.get(digest);
    if (source === undefined) this.#logSource.set(digest, target);
    return source === undefined || source === target;
  }
}

function withPrefix(vertex: VertexUpdate, target: string): VertexUpdate {
  const { name, progressGroup } = vertex;
  const renamed = { ...vertex, name: prefixed(name, target) };
  if (progressGroup === undefined) return renamed;
  return { ...renamed, progressGroup: { ...progressGroup, name: prefixed(progressGroup.name, target) } };
}

function prefixed(name: string, target: string): string {
  return name.startsWith("[") ? `[${target} ${name.slice(1)}` : `[${target}] ${name}`;
}
