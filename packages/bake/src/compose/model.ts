/** A secret that a Compose service's build uses, with where it comes from. */
export interface ComposeSecret {
  readonly source: string;
  readonly file: string;
  readonly environment: string;
}

/** The `build` of a Compose service, after interpolation, merging and `extends`. */
export interface ComposeBuild {
  readonly context: string;
  readonly dockerfile: string;
  readonly dockerfileInline: string;
  /** Null: without a value; they are resolved before. */
  readonly args: ReadonlyMap<string, string>;
  readonly labels: ReadonlyMap<string, string>;
  readonly tags: readonly string[];
  readonly image: string;
  readonly target: string;
  readonly cacheFrom: readonly string[];
  readonly cacheTo: readonly string[];
  readonly noCache: boolean;
  readonly pull: boolean;
  readonly platforms: readonly string[];
  readonly network: string;
  readonly ssh: readonly { readonly id: string; readonly path: string }[];
  readonly secrets: readonly ComposeSecret[];
  readonly shmSizeBytes: number;
  readonly ulimits: readonly { readonly name: string; readonly soft: number; readonly hard: number }[];
  readonly extraHosts: ReadonlyMap<string, readonly string[]>;
  readonly additionalContexts: ReadonlyMap<string, string>;
  readonly sbom: string;
  readonly provenance: string;
}
