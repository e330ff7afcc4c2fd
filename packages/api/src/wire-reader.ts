/** Walks over the fields of a message in protobuf's wire format; for bytes that this program carries itself. */
export class WireReader {
  /** Number of the current field. */
  field = 0;
  readonly #bytes: Uint8Array;
  #at = 0;
  #wireType = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** Goes to the next field; its value must then be read or skipped. */
  next(): boolean {
    if (this.#at >= this.#bytes.length) return false;
    const tag = this.varint();
    this.field = tag >>> 3;
    this.#wireType = tag & 7;
    return true;
  }

  /** A number below 2^31. */
  varint(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined || shift > 63) throw new RangeError("a descriptor that ends too early");
      if (shift < 28) value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  }

  bytes(): Uint8Array {
    const length = this.varint();
    const from = this.#at;
    this.#at += length;
    return this.#bytes.subarray(from, this.#at);
  }

  /** Names are ASCII. */
  text(): string {
    return String.fromCharCode(...this.bytes());
  }

  skip(): void {
    if (this.#wireType === 2) this.bytes();
    else if (this.#wireType === 0) this.varint();
    else if (this.#wireType === 1) this.#at += 8;
    else if (this.#wireType === 5) this.#at += 4;
    else throw new RangeError(`a descriptor with wire type ${this.#wireType}`);
  }
}
