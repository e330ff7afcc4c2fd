import { type Range, type State, scratch } from "@kiln/llb";
import type { Platform } from "@kiln/oci";
import type { ArgDefinition, Instruction, Stage } from "../instructions/types.ts";
import type { NamedContext } from "./host.ts";
import { blankImage, type Image } from "./image.ts";

/** An instruction with the stages that it takes files from. */
export interface Step {
  readonly instruction: Instruction;
  /** COPY: none or one; RUN: one per mount. */
  readonly sources: readonly StageState[];
  /** It comes from an ONBUILD. */
  readonly isReplayed: boolean;
}

/** What is known of an ARG, for outlines. */
export interface ArgInfo {
  readonly definition: ArgDefinition;
  readonly value: string;
  /** Other ARGs in its default. */
  readonly uses: ReadonlySet<string>;
  readonly location: readonly Range[];
}

/** A secret or agent that a stage asks for. */
export interface AccessInfo {
  readonly required: boolean;
  readonly location: readonly Range[];
}

/** What an outline tells about a stage. */
export interface OutlineNotes {
  readonly args: Map<string, ArgInfo>;
  readonly used: Set<string>;
  readonly secrets: Map<string, AccessInfo>;
  readonly ssh: Map<string, AccessInfo>;
}

/** An independent copy. */
export function copyNotes(notes: OutlineNotes): OutlineNotes {
  return {
    args: new Map(notes.args),
    used: new Set(notes.used),
    secrets: new Map(notes.secrets),
    ssh: new Map(notes.ssh),
  };
}

/** Where an instruction that should come once was last seen. */
export interface Once {
  location: readonly Range[] | undefined;
}

/** A stage while it is compiled, or an image that files are copied from. */
export class StageState {
  readonly stage: Stage;
  /** Base name, which becomes a full reference. */
  baseName: string;
  /** What names show; empty when there is one stage only. */
  label: string;
  base: StageState | undefined;
  namedContext: NamedContext | undefined;
  /** Stages that files come from, with the instruction that asks. */
  readonly deps = new Map<StageState, Instruction>();
  steps: Step[] = [];
  state: State = scratch();
  image: Image = blankImage();
  baseImage: Image | undefined;
  platform: Platform | undefined;
  /** Its result can be used. */
  isDispatched = false;
  isResolved = false;
  /** It stands for an image, not for a FROM. */
  isImplied = false;
  hasTriggers = false;
  buildArgs: ArgDefinition[] = [];
  /** Paths of the build context that it uses. */
  readonly contextPaths = new Set<string>();
  /** Paths of this stage that others use; shared with its base. */
  paths = new Set<string>();
  ignoreCache = false;
  showsPlatform = false;
  step = 0;
  stepCount = 0;
  isReplaying = false;
  notes: OutlineNotes;
  scansContext = false;
  scansStage = false;
  hasWorkdir = false;
  readonly cmd: Once = { location: undefined };
  readonly entrypoint: Once = { location: undefined };
  readonly healthcheck: Once = { location: undefined };

  constructor(stage: Stage, notes: OutlineNotes) {
    this.stage = stage;
    this.baseName = stage.baseName;
    this.label = stage.name;
    this.notes = notes;
  }
}

/** A stand-in for an image that no FROM names. */
export function impliedStage(baseName: string, location: readonly Range[]): StageState {
  const stage: Stage = {
    kind: "stage",
    name: "",
    keyword: "",
    baseName,
    platform: "",
    description: "",
    code: "",
    location,
    comments: [],
    instructions: [],
  };
  const state = new StageState(stage, {
    args: new Map(),
    used: new Set(),
    secrets: new Map(),
    ssh: new Map(),
  });
  state.isImplied = true;
  return state;
}
