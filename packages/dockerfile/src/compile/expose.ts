import { quoteGo } from "@kiln/formats";
import { cut, lower } from "../base/go-text.ts";
import { isIpAddress } from "../base/ip.ts";
import { Problem } from "../base/problem.ts";
import type { ExposeInstruction } from "../instructions/types.ts";
import { rules, texts } from "../lint/rules.ts";
import { expand } from "../shell/lex.ts";
import type { StepContext } from "./context.ts";
import { addHistory } from "./history.ts";
import type { StageState } from "./stage-state.ts";

const MAX_PORT = 65535;

/** EXPOSE. */
export function applyExpose(context: StepContext, state: StageState, step: ExposeInstruction): void {
  const words = step.ports.flatMap((port) => expand(port, state.state.env, context.lex).words);
  const ports = words.flatMap((word) => parsePort(word, { context, step }));
  for (const port of ports) state.image.config.exposedPorts.add(port);
  addHistory(state, `EXPOSE [${ports.join(" ")}]`, { epochSeconds: context.epochSeconds });
}

interface Where {
  readonly context: StepContext;
  readonly step: ExposeInstruction;
}

/** Reads `[ip:[hostPort:]]port[-port][/protocol]` as a list of `port/protocol`. */
function parsePort(word: string, where: Where): string[] {
  const parts = word.split(":");
  const container = parts.pop()!;
  const hostPort = parts.pop() ?? "";
  const ip = parts.join(":");
  const [port, protocol] = splitProtocol(container, word);
  checkStyle(word, { isMapping: ip !== "" || hostPort !== "", protocol, where });
  if (ip !== "") checkIp(ip);
  const range = parseRange(port);
  if (range === undefined) throw new Problem(`invalid containerPort: ${port}`);
  if (hostPort !== "") checkHostPort(hostPort, port, range);
  const out: string[] = [];
  for (let number = range[0]; number <= range[1]; number++) out.push(`${number}/${lower(protocol)}`);
  return out;
}

function splitProtocol(text: string, word: string): [string, string] {
  const [port, protocol] = cut(text, "/");
  if (port === "") throw new Problem(`invalid port: ${quoteGo(word)}: no port specified`);
  if (protocol === "") return [port, "tcp"];
  if (/^(?:tcp|udp|sctp)$/.test(lower(protocol))) return [port, protocol];
  throw new Problem(`invalid port: ${quoteGo(word)}: invalid proto: ${protocol}`);
}

function checkStyle(
  word: string,
  style: { readonly isMapping: boolean; readonly protocol: string; readonly where: Where },
): void {
  const { context, step } = style.where;
  if (style.protocol !== lower(style.protocol)) {
    context.linter.run(rules.exposeProtoCasing, step.location, texts.exposeProtoCasing(word));
  }
  if (style.isMapping) {
    context.linter.run(rules.exposeInvalidFormat, step.location, texts.exposeInvalidFormat(word));
  }
}

function checkIp(ip: string): void {
  let address = ip;
  if (ip.startsWith("[")) {
    const end = ip.indexOf("]");
    if (end < 0) throw new Problem(`invalid IP address ${ip}: address ${ip}:: missing ']' in address`);
    if (end !== ip.length - 1) {
      throw new Problem(`invalid IP address ${ip}: address ${ip}:: too many colons in address`);
    }
    address = ip.slice(1, end);
  }
  if (address !== "" && !isIpAddress(address)) throw new Problem(`invalid IP address: ${address}`);
}

function parseRange(text: string): [number, number] | undefined {
  const [first, second, isRange] = cut(text, "-");
  const start = parseNumber(first);
  if (start === undefined) return undefined;
  if (!isRange || first === second) return [start, start];
  const end = parseNumber(second);
  return end === undefined || end < start ? undefined : [start, end];
}

function parseNumber(text: string): number | undefined {
  if (!/^[+-]?[0-9]+$/.test(text)) return undefined;
  const number = Number(text);
  return number >= 0 && number <= MAX_PORT ? number : undefined;
}

function checkHostPort(hostPort: string, port: string, range: [number, number]): void {
  const host = parseRange(hostPort);
  if (host === undefined) throw new Problem(`invalid hostPort: ${hostPort}`);
  const size = range[1] - range[0];
  if (size !== host[1] - host[0] && size !== 0) {
    throw new Problem(`invalid ranges specified for container and host Ports: ${port} and ${hostPort}`);
  }
}
