import type { SshKey } from "./ssh-key.ts";
import { SshReader, sshStrings } from "./ssh-key.ts";

const requestIdentities = 11;
const identitiesAnswer = 12;
const signRequest = 13;
const signResponse = 14;
const failure = 5;

/** Largest message of the agent protocol. Source: OpenSSH's AGENT_MAX_LEN. */
const maxMessageBytes = 256 << 10;

/** Takes a stream apart into messages of the agent protocol. */
export class AgentMessages {
  #rest: Buffer = Buffer.alloc(0);

  /** Complete messages (type and contents, without length) after more bytes have come. Throws for too long ones. */
  push(chunk: Uint8Array): Buffer[] {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    const out: Buffer[] = [];
    while (this.#rest.length >= 4) {
      const length = this.#rest.readUInt32BE();
      if (length === 0 || length > maxMessageBytes) throw new Error("agent message of invalid length");
      if (this.#rest.length < 4 + length) break;
      out.push(this.#rest.subarray(4, 4 + length));
      this.#rest = this.#rest.subarray(4 + length);
    }
    return out;
  }
}

/** A message with its length in front. */
export function agentFrame(message: Uint8Array): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(message.length);
  return Buffer.concat([length, message]);
}

/** The answer that refuses. */
export const agentFailure: Buffer = agentFrame(Buffer.of(failure));

/** A build may list keys and sign with them; it may not add, remove or lock, nor use extensions. */
export function isAllowedForBuilds(message: Uint8Array): boolean {
  return message[0] === requestIdentities || message[0] === signRequest;
}

/** Answers a message with keys of this process. */
export function answerWithKeys(keys: readonly SshKey[], message: Uint8Array): Buffer {
  if (message[0] === requestIdentities) {
    const count = Buffer.alloc(4);
    count.writeUInt32BE(keys.length);
    const entries = keys.map((key) => sshStrings(key.blob, key.comment));
    return agentFrame(Buffer.concat([Buffer.of(identitiesAnswer), count, ...entries]));
  }
  if (message[0] !== signRequest) return agentFailure;
  try {
    const r = new SshReader(message.subarray(1));
    const blob = r.bytes();
    const data = r.bytes();
    const flags = r.uint32();
    const key = keys.find((k) => blob.equals(k.blob));
    if (!key) return agentFailure;
    return agentFrame(Buffer.concat([Buffer.of(signResponse), sshStrings(key.sign(data, flags))]));
  } catch {
    return agentFailure;
  }
}
