import { fromBinary } from "@bufbuild/protobuf";
import { type Definition, OpSchema } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import { type RequestRecord, sameRequest, withoutRoot } from "./request.ts";

/**
 * Which request each running build's definitions came from: a definition that is an input of another
 * request can then be told of as that request.
 */
export class RequestRecords {
  readonly #byDigest = new Map<string, Set<RequestRecord>>();

  /** Notes it until the returned function is called. */
  register(definition: Definition, record: RequestRecord): () => void {
    const digest = headDigest(definition);
    if (digest === undefined) return () => undefined;
    const own = { ...record };
    const records = this.#byDigest.get(digest) ?? new Set();
    this.#byDigest.set(digest, records.add(own));
    return () => {
      records.delete(own);
      if (records.size === 0 && this.#byDigest.get(digest) === records) this.#byDigest.delete(digest);
    };
  }

  /** The request that a definition came from; undefined also when several different ones gave it. */
  find(definition: Definition): RequestRecord | undefined {
    const digest = headDigest(definition);
    const [first, ...others] = digest === undefined ? [] : (this.#byDigest.get(digest) ?? []);
    if (first === undefined) return undefined;
    const record = withoutRoot(first);
    return others.every((other) => sameRequest(record, withoutRoot(other))) ? record : undefined;
  }
}

/** Digest of the op whose output the definition asks for. */
function headDigest(definition: Definition): string | undefined {
  const last = definition.def.at(-1);
  if (last === undefined) return undefined;
  try {
    return fromBinary(OpSchema, last).inputs[0]?.digest;
  } catch (error) {
    throw new BuildError("invalid_argument", "failed to parse llb proto op", { cause: error });
  }
}
