import { BuildError } from "@kiln/base";
import type { Platform } from "@kiln/oci";
import type { FrontendResult } from "../../frontends/frontend.ts";
import type { CapturedImage, JobBridge } from "../../solve/bridge.ts";
import { eachRef } from "../../solve/build-results.ts";
import { type ResultPlatform, resultPlatforms } from "../../solve/result-platforms.ts";
import type { Capture } from "./capture.ts";
import { filterArgs, type RequestRecord, requestRecord, sameRequest } from "./request.ts";

/** What went into one tree of a result, and which request it answers. */
export interface ResultCapture {
  readonly capture: Capture;
  /** Of the frontend that made the tree; undefined when the client sent a definition. */
  readonly request: RequestRecord | undefined;
}

/**
 * What went into the tree of a platform: its own sources, those of every other tree that its frontend has
 * looked at on the way (but not the other platforms' trees), and the images that were looked up.
 *
 * @returns undefined when the platform's tree is empty.
 * @throws BuildError `internal` for a tree that didn't come through the bridge.
 */
export function captureResult(
  bridge: JobBridge,
  result: FrontendResult,
  platformId: string,
): ResultCapture | undefined {
  const keyed = result.refs !== undefined && result.refs.size > 0;
  const ref = keyed ? result.refs.get(platformId) : result.ref;
  const own = ref?.capture;
  if (ref === undefined || own === undefined) return undefined;
  const from = bridge.bridgeOf(ref);
  if (from === undefined) throw new BuildError("internal", `could not find request for ref ${ref.id}`);
  const capture = own.clone();
  const seen = new Set<string>([...eachRef(result)].map((item) => item.id));
  for (const other of from.eachRef()) {
    if (seen.has(other.id)) continue;
    seen.add(other.id);
    if (other.capture !== undefined) capture.merge(other.capture);
  }
  const images = from.allImages();
  const wanted = keyed ? imagesFor(images, resultPlatforms(result.metadata), platformId) : images;
  for (const image of wanted) capture.addImage(image);
  capture.dropCanonicalDoubles();
  capture.sort();
  return { capture, request: bridgeRequest(from, capture) };
}

/** Leaves out images of other platforms, where an image was looked up for every platform of the result. */
function imagesFor(
  images: readonly CapturedImage[],
  platforms: readonly ResultPlatform[],
  platformId: string,
): readonly CapturedImage[] {
  const complete = new Set<string>();
  for (const { ref } of images) {
    const all = platforms.every(({ platform }) =>
      images.some((image) => image.ref === ref && matches(image.platform, platform)),
    );
    if (all) complete.add(ref);
  }
  const current = platforms.find(({ id }) => id === platformId)?.platform;
  return images.filter(
    ({ ref, platform }) =>
      platform === undefined ||
      !complete.has(ref) ||
      (platform.os === current?.os && platform.architecture === current.architecture),
  );
}

function matches(platform: Platform | undefined, wanted: Platform): boolean {
  return (
    platform !== undefined &&
    platform.os === wanted.os &&
    platform.architecture === wanted.architecture &&
    (platform.variant ?? "") === (wanted.variant ?? "")
  );
}

/**
 * The request that a frontend's bridge serves, with the client's own request as `root` where they differ.
 *
 * @returns undefined for a bridge that serves no frontend.
 */
export function bridgeRequest(bridge: JobBridge, capture: Capture | undefined): RequestRecord | undefined {
  const { request, rootRequest } = bridge;
  if (request === undefined) return undefined;
  const describe = (asked: typeof request): RequestRecord => {
    const record = requestRecord(asked.frontend, filterArgs(asked.frontendAttrs), capture);
    return { ...record, request: { ...record.request, inputs: inputRecords(bridge, asked) } };
  };
  const own = describe(request);
  const root = rootRequest === undefined ? undefined : describe(rootRequest);
  const rootSaysSomething =
    root !== undefined &&
    (root.request.frontend !== "" || root.request.args.size > 0 || root.request.inputs.size > 0);
  if (!rootSaysSomething || sameRequest(root, own)) return own;
  return { ...own, request: { ...own.request, root } };
}

/** What was found out about requests' inputs while the builds that they came from were still running. */
const knownInputs = new WeakMap<object, ReadonlyMap<string, RequestRecord>>();

function inputRecords(
  bridge: JobBridge,
  request: NonNullable<JobBridge["request"]>,
): ReadonlyMap<string, RequestRecord> {
  const known = knownInputs.get(request);
  if (known !== undefined) return known;
  const records = new Map<string, RequestRecord>();
  for (const [name, definition] of request.frontendInputs) {
    const record = bridge.host.requests?.find(definition);
    if (record !== undefined) records.set(name, record);
  }
  knownInputs.set(request, records);
  return records;
}
