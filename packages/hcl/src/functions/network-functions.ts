import { listType, numberType, stringType } from "../cty/type.ts";
import { listValue, stringValue, type Value } from "../cty/value.ts";
import { ArgumentError, FunctionError } from "../function.ts";
import {
  CidrError,
  formatMask,
  formatNetwork,
  hostAddress,
  nextSubnet,
  parseCidr,
  subnet,
} from "../net/cidr.ts";
import { asInteger, type FunctionTable, fn, num, text, variadic } from "./support.ts";

function guarded(compute: () => string): Value {
  try {
    return stringValue(compute());
  } catch (error) {
    throw error instanceof CidrError ? new FunctionError(error.message) : error;
  }
}

function subnets(args: readonly Value[]): Value {
  let whole: ReturnType<typeof parseCidr>;
  try {
    whole = parseCidr(args[0]!.string);
  } catch (error) {
    throw error instanceof CidrError ? new ArgumentError(0, error.message) : error;
  }
  const out: Value[] = [];
  let at = whole.address;
  let last = "";
  for (const [i, arg] of args.slice(1).entries()) {
    const newBits = asInteger(arg);
    const fail = (why: string): ArgumentError => new ArgumentError(i + 1, why);
    if (newBits < 1) throw fail("must extend prefix by at least one bit");
    if (newBits > 32) throw fail("may not extend prefix by more than 32 bits");
    const prefix = whole.prefix + newBits;
    if (prefix > whole.bits) {
      const protocol = whole.bits === 32 ? "IPv4" : "IPv6";
      throw fail(`would extend prefix to ${prefix} bits, which is too long for an ${protocol} address`);
    }
    const next = nextSubnet(whole, at, prefix);
    if (next === undefined) {
      throw fail(
        `not enough remaining address space for a subnet with a prefix of ${prefix} bits after ${last}`,
      );
    }
    at = next.address + (1n << BigInt(next.bits - prefix));
    last = formatNetwork(next);
    out.push(stringValue(last));
  }
  return listValue(out, stringType);
}

/** IP networks. */
export const networkFunctions: FunctionTable = {
  cidrhost: fn(
    "Calculates a full host IP address within a given IP network address prefix.",
    [text("prefix"), num("hostnum")],
    stringType,
    ([prefix, host]) => guarded(() => hostAddress(parseCidr(prefix!.string), asInteger(host!))),
  ),
  cidrnetmask: fn(
    "Converts an IPv4 address prefix given in CIDR notation into a subnet mask address.",
    [text("prefix")],
    stringType,
    ([prefix]) => guarded(() => formatMask(parseCidr(prefix!.string))),
  ),
  cidrsubnet: fn(
    "Calculates a subnet address within a given IP network address prefix.",
    [text("prefix"), num("newbits"), num("netnum")],
    stringType,
    ([prefix, newBits, number]) =>
      guarded(() =>
        formatNetwork(subnet(parseCidr(prefix!.string), asInteger(newBits!), asInteger(number!))),
      ),
  ),
  cidrsubnets: variadic(
    fn(
      "Calculates many consecutive subnet addresses at once, rather than just a single subnet extension.",
      [text("prefix")],
      listType(stringType),
      subnets,
    ),
    { name: "newbits", type: numberType },
  ),
};
