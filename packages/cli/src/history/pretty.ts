/** A build record for people. */
import { bytesSize } from "@kiln/formats";
import { sanitizeName } from "@kiln/progress";
import { alignColumns, BUILDKIT_TABS } from "../tab-writer.ts";
import { errorLine, type NamedValue, type RecordDescription } from "./describe.ts";
import { durationText } from "./query.ts";

const CONFIG_TITLES: readonly (readonly [key: string, title: string])[] = [
  ["Network", "Network"],
  ["Hostname", "Hostname"],
  ["ExtraHosts", "Extra Hosts"],
  ["CgroupParent", "Cgroup Parent"],
  ["ImageResolveMode", "Image Resolve Mode"],
  ["MultiPlatform", "Multi-Platform"],
  ["NoCache", "No Cache"],
  ["NoCacheFilter", "No Cache Filter"],
  ["ShmSize", "Shm Size"],
  ["Ulimit", "Resource Limits"],
  ["Memory", "Memory"],
  ["MemorySwap", "Memory Swap"],
  ["CPUShares", "CPU Shares"],
  ["CPUPeriod", "CPU Period"],
  ["CPUQuota", "CPU Quota"],
  ["CPUSetCPUs", "CPUSet CPUs"],
  ["CPUSetMems", "CPUSet Mems"],
  ["CacheMountNS", "Cache Mount Namespace"],
  ["DockerfileCheckConfig", "Dockerfile Check Config"],
  ["SourceDateEpoch", "Source Date Epoch"],
  ["SandboxHostname", "Sandbox Hostname"],
];

/** The text. */
export function prettyRecord(
  record: RecordDescription,
  opts: {
    readonly showsRef: boolean;
    readonly fullRef: string;
    readonly debug: boolean;
    readonly program: string;
  },
): string {
  const head: [string, string | undefined][] = [
    ["Name", record.Name],
    ["Ref", opts.showsRef ? record.Ref : undefined],
    ["Context", record.Context],
    ["Dockerfile", record.Dockerfile],
    ["VCS Repository", record.VCSRepository],
    ["VCS Revision", record.VCSRevision],
    ["Target", record.Target],
    ["Platforms", record.Platform?.join(", ")],
    ["Keep Git Dir", record.KeepGitDir && "true"],
  ];
  let out = `${lines(head)}\n`;
  out += namedTable(record.NamedContexts, "NAMED CONTEXT");
  out += `${lines(progressLines(record))}\n`;
  out += `${lines(configLines(record))}\n`;
  out += namedTable(record.BuildArgs, "BUILD ARG") + namedTable(record.Labels, "LABEL");
  if (record.Materials) {
    const rows = record.Materials.map(
      ({ URI, Digests }) => `${sanitizeName(URI)}\t${(Digests ?? []).join(", ")}\n`,
    );
    out += `Materials:\n${align(`URI\tDIGEST\n${rows.join("")}`)}\n`;
  }
  if (record.Attachments) {
    const rows = record.Attachments.map(
      ({ Digest, Platform, Type }) => `${Digest}\t${Platform ?? ""}\t${Type}\n`,
    );
    out += `Attachments:\n${align(`DIGEST\tPLATFORM\tTYPE\n${rows.join("")}`)}\n`;
  }
  out += errorText(record, opts.debug);
  const [, , ref] = opts.fullRef.split("/");
  if (opts.program !== "buildx") return `${out}Print build logs: ${opts.program} history logs ${ref}\n`;
  out += `Print build logs: docker buildx history logs ${ref}\n`;
  return `${out}View build in Docker Desktop: docker-desktop://dashboard/build/${opts.fullRef}\n`;
}

function progressLines(record: RecordDescription): [string, string | undefined][] {
  const running = record.Status === "running" ? " (running)" : "";
  const cached = (record.NumCachedSteps / record.NumTotalSteps) * 100;
  const share = Number.isNaN(cached) ? "NaN" : cached.toFixed(0);
  return [
    ["Started", localTime(record.StartedAt)],
    ["Duration", `${durationText(record.Duration ?? 0n)}${running}`],
    ["Error", record.Status === "failed" && record.Error ? sanitizeName(errorLine(record.Error)) : undefined],
    ["Status", record.Status === "canceled" ? "Canceled" : undefined],
    ["Build Steps", `${record.NumCompletedSteps}/${record.NumTotalSteps} (${share}% cached)`],
  ];
}

function configLines(record: RecordDescription): [string, string | undefined][] {
  const known = CONFIG_TITLES.map(([key, title]): [string, string | undefined] => {
    const value = record.Config[key];
    if (value === undefined) return [title, undefined];
    if (value === true) return [title, "true"];
    if (typeof value === "string") return [title, key.startsWith("Memory") ? humanBytes(value) : value];
    return [title, (value as readonly string[]).join(", ")];
  });
  const rest = (record.Config.RestRaw ?? []) as readonly NamedValue[];
  return [...known, ...rest.map(({ Name, Value = "" }): [string, string] => [Name, Value])];
}

function errorText({ Error: error }: RecordDescription, debug: boolean): string {
  if (!error) return "";
  let out = error.Sources ? new TextDecoder().decode(error.Sources) : "";
  if (error.Logs) {
    out += `Logs:\n> => ${sanitizeName(error.Name ?? "")}:\n${error.Logs.map((line) => `> ${line}\n`).join("")}\n`;
  }
  return debug ? out : `${out}Enable --debug to see stack traces for error\n`;
}

function lines(rows: readonly (readonly [string, string | undefined])[]): string {
  const filled = rows.filter(([, value]) => value !== undefined);
  if (filled.length === 0) return "";
  return align(filled.map(([key, value]) => `${key}:\t${sanitizeName(value as string)}\n`).join(""));
}

function namedTable(values: readonly NamedValue[] | undefined, title: string): string {
  if (!values) return "";
  const rows = values.map(({ Name, Value = "" }) => `${sanitizeName(Name)}\t${sanitizeName(Value)}\n`);
  return `${align(`${title}\tVALUE\n${rows.join("")}`)}\n`;
}

function align(text: string): string {
  return alignColumns(text, BUILDKIT_TABS);
}

function humanBytes(text: string): string {
  const bytes = Number(text);
  return /^\d+$/.test(text) ? bytesSize(bytes) : text;
}

function localTime(rfc3339: string): string {
  const date = new Date(rfc3339);
  const local = new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 19).replace("T", " ");
}
