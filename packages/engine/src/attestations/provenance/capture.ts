import type { ResourceUsage } from "@kiln/executor";
import { type Digest, type Platform, parseReference, referenceName } from "@kiln/oci";
import { redactCredentials } from "../../sources/redact.ts";

/** An image that a build has used. */
export interface ImageMaterial {
  readonly ref: string;
  readonly platform: Platform | undefined;
  readonly digest: string;
  /** From an OCI layout of the client. */
  readonly local: boolean;
}

/** One blob of a registry or a layout that a build has used. */
export interface BlobMaterial {
  readonly ref: string;
  readonly digest: Digest;
  readonly local: boolean;
}

/** A commit that a build has used. */
export interface GitMaterial {
  /** Remote and `#ref`. */
  readonly url: string;
  readonly commit: string;
  /** Locator of the bundle that it came from: `<scheme>://<ref>@<digest>`. */
  readonly bundle: string | undefined;
}

/** A download that a build has used. */
export interface HttpMaterial {
  readonly url: string;
  readonly digest: string;
}

/** A secret or SSH agent that a build could see. */
export interface SecretUse {
  readonly id: string;
  readonly optional: boolean;
}

/** A request of a step that the recording proxy couldn't turn into a material. */
export interface IncompleteRequest {
  readonly op: string;
  readonly name: string;
  readonly method: string;
  readonly uri: string;
  readonly reason: string;
}

/**
 * What went into a tree: its sources with what they were resolved to, and what its steps could reach.
 * Nothing is in it twice; credentials in URLs never get in.
 */
export class Capture {
  readonly images: ImageMaterial[] = [];
  readonly blobs: BlobMaterial[] = [];
  readonly git: GitMaterial[] = [];
  readonly http: HttpMaterial[] = [];
  /** Names of the client's directories. */
  readonly locals: string[] = [];
  readonly secrets: SecretUse[] = [];
  readonly ssh: SecretUse[] = [];
  readonly incompleteRequests: IncompleteRequest[] = [];
  /** What steps have used, by the digest of their op; of those that ran. */
  readonly usage = new Map<string, ResourceUsage>();
  networkAccess = false;
  proxyNetwork = false;
  incompleteMaterials = false;

  clone(): Capture {
    const copy = new Capture();
    copy.merge(this);
    return copy;
  }

  merge(other: Capture): void {
    for (const item of other.images) this.addImage(item);
    for (const item of other.blobs) this.addBlob(item);
    for (const item of other.git) this.addGit(item);
    for (const item of other.http) this.addHttp(item);
    for (const item of other.locals) this.addLocal(item);
    for (const item of other.secrets) this.addSecret(item);
    for (const item of other.ssh) this.addSsh(item);
    this.incompleteRequests.push(...other.incompleteRequests);
    for (const [op, usage] of other.usage) this.usage.set(op, usage);
    this.networkAccess ||= other.networkAccess;
    this.proxyNetwork ||= other.proxyNetwork;
    this.incompleteMaterials ||= other.incompleteMaterials;
  }

  addImage(image: ImageMaterial): void {
    const known = this.images.some(
      (other) =>
        other.ref === image.ref &&
        other.local === image.local &&
        platformKey(other.platform) === platformKey(image.platform),
    );
    if (!known) this.images.push(image);
  }

  addBlob(blob: BlobMaterial): void {
    if (this.blobs.some((other) => other.ref === blob.ref && other.local === blob.local)) return;
    this.blobs.push(blob);
  }

  /** One repository with and without a bundle, or by two bundles, is two materials. */
  addGit(git: GitMaterial): void {
    const url = redactCredentials(git.url);
    if (this.git.some((other) => other.url === url && other.bundle === git.bundle)) return;
    this.git.push({ ...git, url });
  }

  addHttp(http: HttpMaterial): void {
    const url = redactCredentials(http.url);
    if (this.http.some((other) => other.url === url)) return;
    this.http.push({ ...http, url });
  }

  addLocal(name: string): void {
    if (!this.locals.includes(name)) this.locals.push(name);
  }

  addSecret(secret: SecretUse): void {
    addUse(this.secrets, secret);
  }

  addSsh(ssh: SecretUse): void {
    addUse(this.ssh, ssh.id === "" ? { ...ssh, id: "default" } : ssh);
  }

  /** Drops images by digest that are there by tag too. @throws BuildError for a name that is none. */
  dropCanonicalDoubles(): void {
    const named = this.images.map((image) => {
      const ref = parseReference(image.ref);
      return {
        image,
        name: `${referenceName(ref)}:${ref.tag ?? "latest"}`,
        canonical: ref.digest !== undefined,
      };
    });
    const tagged = new Set(named.filter((item) => !item.canonical).map((item) => item.name));
    const kept = named.filter((item) => !item.canonical || !tagged.has(item.name));
    this.images.splice(0, this.images.length, ...kept.map((item) => item.image));
  }

  /** Puts everything into an order that doesn't depend on that of the work. */
  sort(): void {
    this.images.sort((a, b) => compare(a.ref, b.ref));
    this.blobs.sort((a, b) => compare(a.ref, b.ref));
    this.locals.sort(compare);
    this.git.sort((a, b) => compare(a.url, b.url));
    this.http.sort((a, b) => compare(a.url, b.url));
    this.secrets.sort((a, b) => compare(a.id, b.id));
    this.ssh.sort((a, b) => compare(a.id, b.id));
    const order = (item: IncompleteRequest): string =>
      [item.op, item.uri, item.method, item.reason].join("\0");
    this.incompleteRequests.sort((a, b) => compare(order(a), order(b)));
  }
}

/** OS features don't count: no index has images that differ in them alone. */
function platformKey(platform: Platform | undefined): string | undefined {
  if (platform === undefined) return undefined;
  const { os, architecture, variant } = platform;
  return [os, architecture, variant ?? "", platform["os.version"] ?? ""].join("\0");
}

/** What one step needs is needed, whatever another step says. */
function addUse(list: SecretUse[], use: SecretUse): void {
  const at = list.findIndex((other) => other.id === use.id);
  if (at < 0) list.push(use);
  else if (!use.optional) list[at] = { ...use, optional: false };
}

function compare(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
