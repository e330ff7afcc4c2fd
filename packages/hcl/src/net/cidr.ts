/** A network: its first address as a number, the length of its prefix, and of an address (32 or 128). */
export interface Network {
  readonly address: bigint;
  readonly prefix: number;
  readonly bits: 32 | 128;
}

/** A text that isn't a network, or a subnet that doesn't fit. */
export class CidrError extends Error {}

function parseIp4(text: string): bigint | undefined {
  const parts = text.split(".");
  if (parts.length !== 4 || !parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256)) {
    return undefined;
  }
  return parts.reduce((sum, part) => (sum << 8n) | BigInt(part), 0n);
}

function parseIp6(text: string): bigint | undefined {
  const tail = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  let given = text;
  if (tail !== null) {
    const low = parseIp4(tail[2] ?? "");
    if (low === undefined) return undefined;
    given = `${tail[1]}${(low >> 16n).toString(16)}:${(low & 0xffffn).toString(16)}`;
  }
  const halves = given.split("::");
  if (halves.length > 2) return undefined;
  const words = (half: string): string[] => (half === "" ? [] : half.split(":"));
  const head = words(halves[0] ?? "");
  const end = words(halves[1] ?? "");
  const gap = 8 - head.length - end.length;
  if (halves.length === 1 ? gap !== 0 : gap < 1) return undefined;
  const all = [...head, ...Array.from({ length: gap }, () => "0"), ...end];
  if (!all.every((word) => /^[0-9a-fA-F]{1,4}$/.test(word))) return undefined;
  return all.reduce((sum, word) => (sum << 16n) | BigInt(`0x${word}`), 0n);
}

/** Parses `10.0.0.0/8` or `fd00::/8`; bits behind the prefix are cleared. */
export function parseCidr(text: string): Network {
  const invalid = new CidrError(`invalid CIDR expression: invalid CIDR address: ${text}`);
  const match = /^([^/]+)\/(\d{1,3})$/.exec(text);
  if (match === null) throw invalid;
  const [address, length] = [match[1] ?? "", Number(match[2])];
  const ip4 = parseIp4(address);
  const ip = ip4 ?? parseIp6(address);
  const bits = ip4 === undefined ? 128 : 32;
  if (ip === undefined || length > bits) throw invalid;
  return { address: ip & mask(length, bits), prefix: length, bits };
}

function mask(prefix: number, bits: number): bigint {
  return ((1n << BigInt(prefix)) - 1n) << BigInt(bits - prefix);
}

/** An address as text; IPv6 in its shortest form. */
export function formatIp(address: bigint, bits: 32 | 128): string {
  if (bits === 32) return [24n, 16n, 8n, 0n].map((shift) => String((address >> shift) & 255n)).join(".");
  const words = Array.from({ length: 8 }, (_, i) => Number((address >> BigInt(112 - 16 * i)) & 0xffffn));
  let best = { start: -1, length: 1 };
  for (let i = 0; i < 8; i++) {
    let length = 0;
    while (i + length < 8 && words[i + length] === 0) length++;
    if (length > best.length) best = { start: i, length };
  }
  const texts = words.map((word) => word.toString(16));
  if (best.start < 0) return texts.join(":");
  return `${texts.slice(0, best.start).join(":")}::${texts.slice(best.start + best.length).join(":")}`;
}

export function formatNetwork(network: Network): string {
  return `${formatIp(network.address, network.bits)}/${network.prefix}`;
}

export function formatMask(network: Network): string {
  return formatIp(mask(network.prefix, network.bits), network.bits);
}

/** The address of a host; negative numbers count from the end. */
export function hostAddress(network: Network, host: number): string {
  const max = (1n << BigInt(network.bits - network.prefix)) - 1n;
  const number = host < 0 ? max + BigInt(host) + 1n : BigInt(host);
  const magnitude = host < 0 ? BigInt(-host) - 1n : number;
  if (magnitude > max) {
    throw new CidrError(`prefix of ${network.prefix} does not accommodate a host numbered ${host}`);
  }
  return formatIp(network.address | number, network.bits);
}

/** A subnet `newBits` longer than the network. */
export function subnet(network: Network, newBits: number, number: number): Network {
  if (newBits > 32) throw new CidrError("may not extend prefix by more than 32 bits");
  const prefix = network.prefix + newBits;
  if (prefix > network.bits) {
    throw new CidrError(`insufficient address space to extend prefix of ${network.prefix} by ${newBits}`);
  }
  if (newBits < 0 || number < 0 || BigInt(number) > (1n << BigInt(newBits)) - 1n) {
    throw new CidrError(`prefix extension of ${newBits} does not accommodate a subnet numbered ${number}`);
  }
  const shift = BigInt(network.bits - prefix);
  return { address: network.address | (BigInt(number) << shift), prefix, bits: network.bits };
}

/** The first network of a prefix length at or behind an address; `undefined` beyond the whole. */
export function nextSubnet(whole: Network, from: bigint, prefix: number): Network | undefined {
  const size = 1n << BigInt(whole.bits - prefix);
  const address = ((from + size - 1n) / size) * size;
  const end = whole.address + (1n << BigInt(whole.bits - whole.prefix));
  return address >= end ? undefined : { address, prefix, bits: whole.bits };
}
