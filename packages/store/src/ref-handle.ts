import { BuildError } from "@kiln/base";
import type { Descriptor, Digest } from "@kiln/oci";
import type { CacheRecord } from "./record.ts";
import type {
  CachePolicy,
  ImmutableRef,
  Mountable,
  MutableRef,
  RecordType,
  RefContext,
  RefMetadata,
  Remote,
  RemoteOptions,
} from "./ref.ts";
import type { RefDeps } from "./ref-deps.ts";
import type { RemoteMaker } from "./remote-maker.ts";
import type { TreeExtractor } from "./tree-extractor.ts";

/** What handles need of their manager. */
export interface RefOwner {
  readonly deps: RefDeps;
  readonly trees: TreeExtractor;
  readonly remotes: RemoteMaker;
  readonly pruner: { sizeOf(record: CacheRecord): Promise<number> };
  mountMutable(record: CacheRecord, readonly: boolean): Promise<Mountable>;
  mountImmutable(record: CacheRecord, ctx: RefContext): Promise<Mountable>;
  commit(record: CacheRecord): Promise<ImmutableRef>;
  finalize(record: CacheRecord): Promise<void>;
  releaseMutable(record: CacheRecord): Promise<void>;
}

/** What both kinds of handle do. */
abstract class Handle {
  readonly id: string;
  protected readonly owner: RefOwner;
  readonly #record: CacheRecord;
  readonly #hold: Disposable;
  #held = true;

  constructor(owner: RefOwner, record: CacheRecord) {
    this.owner = owner;
    this.id = record.id;
    this.#record = record;
    this.#hold = owner.deps.records.hold(record);
  }

  /** @throws `failed_precondition` after the release */
  protected get record(): CacheRecord {
    if (!this.#held) throw new BuildError("failed_precondition", `cache ref ${this.id} was released`);
    return this.#record;
  }

  /** False when the handle was released before. */
  protected letGo(): boolean {
    if (!this.#held) return false;
    this.#held = false;
    this.#hold[Symbol.dispose]();
    return true;
  }

  get metadata(): RefMetadata {
    return this.owner.deps.records.metadata(this.id);
  }

  get description(): string {
    return this.#record.state.description;
  }

  get recordType(): RecordType {
    return this.#record.state.recordType;
  }

  get createdAt(): number {
    return this.#record.state.createdAt;
  }

  get lastUsedAt(): number | undefined {
    return this.#record.lastUsedAt;
  }

  get usageCount(): number {
    return this.#record.usageCount;
  }

  setDescription(description: string): void {
    if (this.record.state.description !== description)
      this.owner.deps.records.update(this.record, { description });
  }

  setRecordType(recordType: RecordType): void {
    if (this.record.state.recordType !== recordType)
      this.owner.deps.records.update(this.record, { recordType });
  }

  setCreatedAt(createdAt: number): void {
    this.owner.deps.records.update(this.record, { createdAt });
  }

  setCachePolicy(cachePolicy: CachePolicy): void {
    if (this.record.state.cachePolicy === cachePolicy) return;
    // What isn't to be retained goes with its handle: that has to be possible on a full disk.
    if (cachePolicy === "default") this.owner.deps.reserve?.release();
    this.owner.deps.records.update(this.record, { cachePolicy });
  }

  async size(): Promise<number> {
    return await this.owner.pruner.sizeOf(this.record);
  }

  abstract release(): Promise<void>;

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }
}

/** Handle on an immutable record. */
export class ImmutableHandle extends Handle implements ImmutableRef {
  readonly kind = "immutable";
  readonly #noUpdate: boolean;

  constructor(owner: RefOwner, record: CacheRecord, noUpdate: boolean) {
    super(owner, record);
    this.#noUpdate = noUpdate;
  }

  clone(): ImmutableRef {
    return new ImmutableHandle(this.owner, this.record, this.#noUpdate);
  }

  parent(): ImmutableRef | undefined {
    const { kind, parents } = this.record.state;
    const id = kind === "layer" ? parents[0] : undefined;
    return id === undefined ? undefined : this.#handle(this.owner.deps.records.get(id));
  }

  layers(): readonly ImmutableRef[] {
    return this.owner.deps.records.layers(this.record).map((layer) => this.#handle(layer));
  }

  #handle(record: CacheRecord): ImmutableRef {
    return new ImmutableHandle(this.owner, record, true);
  }

  get diffId(): Digest | undefined {
    return this.record.state.diffId;
  }

  get chainId(): Digest | undefined {
    return this.record.state.chainId;
  }

  get blobChainId(): Digest | undefined {
    return this.record.state.blobChainId;
  }

  get blob(): Descriptor | undefined {
    return this.record.state.blob;
  }

  get imageRefs(): readonly string[] {
    return this.record.state.imageRefs;
  }

  addImageRef(ref: string): void {
    const { imageRefs } = this.record.state;
    if (!imageRefs.includes(ref))
      this.owner.deps.records.update(this.record, { imageRefs: [...imageRefs, ref] });
  }

  hasCachePolicyRetain(): boolean {
    return this.record.state.cachePolicy === "retain";
  }

  isExtracted(): boolean {
    return this.owner.trees.isExtracted(this.record);
  }

  async extract(ctx: RefContext): Promise<void> {
    await this.owner.trees.extract(this.record, ctx);
  }

  async mount(readonly: boolean, ctx: RefContext): Promise<Mountable> {
    if (!readonly) throw new BuildError("invalid_argument", `cache record ${this.id} is immutable`);
    return await this.owner.mountImmutable(this.record, ctx);
  }

  async finalize(): Promise<void> {
    await this.owner.finalize(this.record);
  }

  async toRemote(opts: RemoteOptions): Promise<Remote | undefined> {
    await this.owner.finalize(this.record);
    return await this.owner.remotes.make(this.record, opts);
  }

  availableRemotes(): readonly Remote[] {
    return this.owner.remotes.available(this.record);
  }

  async release(): Promise<void> {
    const { deps } = this.owner;
    const record = deps.records.find(this.id);
    if (this.letGo() && record && !this.#noUpdate) deps.records.touch(record);
  }
}

/** The handle on a mutable record. */
export class MutableHandle extends Handle implements MutableRef {
  readonly kind = "mutable";

  get parentId(): string | undefined {
    return this.record.state.parents[0];
  }

  async mount(readonly: boolean, _ctx: RefContext): Promise<Mountable> {
    return await this.owner.mountMutable(this.record, readonly);
  }

  async commit(): Promise<ImmutableRef> {
    const { record } = this;
    const ref = await this.owner.commit(record);
    this.letGo();
    return ref;
  }

  async release(): Promise<void> {
    const { deps } = this.owner;
    const record = deps.records.find(this.id);
    if (!this.letGo() || !record) return;
    deps.records.touch(record);
    await this.owner.releaseMutable(record);
  }
}
