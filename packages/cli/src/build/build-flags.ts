import { parseRamBytes, parseUlimit } from "@kiln/formats";
import type { FlagSpec } from "../command/flags.ts";

const PROGRESS =
  'Set type of progress output ("auto", "none",  "plain", "quiet", "rawjson", "tty"). Use plain to show container output';

/** Flags that `build` and `bake` share. */
export const commonBuildFlags: readonly FlagSpec[] = [
  { name: "no-cache", kind: "bool", usage: "Do not use cache when building the image" },
  { name: "progress", kind: "string", defaultValue: "auto", usage: PROGRESS },
  { name: "pull", kind: "bool", usage: "Always attempt to pull all referenced images" },
  { name: "metadata-file", kind: "string", usage: "Write build result metadata to a file" },
  {
    name: "call",
    kind: "string",
    defaultValue: "build",
    usage: 'Set method for evaluating build ("check", "outline", "targets")',
  },
  { name: "check", kind: "bool", usage: 'Shorthand for "--call=check"' },
];

const list = (name: string, usage: string, short?: string): FlagSpec => ({
  name,
  kind: "list",
  usage,
  ...(short === undefined ? {} : { short }),
});
const text = (name: string, usage: string): FlagSpec => ({ name, kind: "string", usage });
const bytes = { typeName: "bytes", check: (value: string): unknown => parseRamBytes(value) } as const;
const legacy = (name: string, usage: string, short?: string): FlagSpec => ({
  name,
  kind: "string",
  hidden: true,
  usage,
  ...(short === undefined ? {} : { short }),
});

/** The flags of `build` that set a resource, see `--resource`. */
export const legacyResourceFlags: readonly FlagSpec[] = [
  legacy("memory", "Memory limit", "m"),
  legacy("memory-swap", 'Swap limit equal to memory plus swap: "-1" to enable unlimited swap'),
  legacy("cpu-shares", "CPU shares (relative weight)", "c"),
  legacy("cpu-period", "Limit the CPU CFS (Completely Fair Scheduler) period"),
  legacy("cpu-quota", "Limit the CPU CFS (Completely Fair Scheduler) quota"),
  legacy("cpuset-cpus", 'CPUs in which to allow execution ("0-3", "0,1")'),
  legacy("cpuset-mems", 'MEMs in which to allow execution ("0-3", "0,1")'),
];

/** Flags of the classic builder that mean nothing here; some say so. */
const ignoredFlags: readonly FlagSpec[] = [
  { name: "compress", kind: "bool", hidden: true, usage: "Compress the build context using gzip" },
  { name: "rm", kind: "bool", hidden: true, defaultValue: "true", usage: "Remove intermediate containers" },
  { name: "force-rm", kind: "bool", hidden: true, usage: "Always remove intermediate containers" },
  {
    name: "isolation",
    kind: "string",
    hidden: true,
    usage: "Container isolation technology",
    warning: "isolation flag is deprecated with BuildKit.",
  },
  {
    name: "security-opt",
    kind: "csv",
    hidden: true,
    usage: "Security options",
    warning: 'security-opt flag is deprecated. "RUN --security=insecure" should be used with BuildKit.',
  },
  {
    name: "squash",
    kind: "bool",
    hidden: true,
    usage: "Squash newly built layers into a single new layer",
    warning:
      "experimental flag squash is removed with BuildKit. You should squash inside build using a multi-stage Dockerfile for efficiency.",
  },
];

/** The flags of `build`. */
export const buildFlags: readonly FlagSpec[] = [
  { name: "add-host", kind: "csv", usage: 'Add a custom host-to-IP mapping (format: "host:ip")' },
  list(
    "allow",
    'Allow extra privileged entitlement (e.g., "network.host", "security.insecure", "device", "buildx.local.delete")',
  ),
  list("annotation", "Add annotation to the image"),
  list("build-arg", "Set build-time variables"),
  list("cache-from", 'External cache sources (e.g., "user/app:cache", "type=local,src=path/to/dir")'),
  list("cache-to", 'Cache export destinations (e.g., "user/app:cache", "type=local,dest=path/to/dir")'),
  text("cgroup-parent", 'Set the parent cgroup for the "RUN" instructions during build'),
  list("build-context", "Additional build contexts (e.g., name=path)"),
  { name: "file", short: "f", kind: "string", usage: 'Name of the Dockerfile (default: "PATH/Dockerfile")' },
  text("iidfile", "Write the image ID to a file"),
  list("label", "Set metadata for an image"),
  { name: "load", kind: "bool", usage: 'Shorthand for "--output=type=docker"' },
  {
    name: "network",
    kind: "string",
    defaultValue: "default",
    usage: 'Set the networking mode for the "RUN" instructions during build',
  },
  list("no-cache-filter", "Do not cache specified stages"),
  list("output", 'Output destination (format: "type=local,dest=path")', "o"),
  list("platform", "Set target platform for build"),
  list(
    "policy",
    'Policy configuration (format: "filename=path[,filename=path][,reset=true|false][,disabled=true|false][,strict=true|false][,log-level=level]")',
  ),
  { name: "push", kind: "bool", usage: 'Shorthand for "--output=type=registry,unpack=false"' },
  {
    name: "quiet",
    short: "q",
    kind: "bool",
    usage: "Suppress the build output and print image ID on success",
  },
  list("secret", 'Secret to expose to the build (format: "id=mysecret[,src=/local/secret]")'),
  { name: "shm-size", kind: "string", usage: "Shared memory size for build containers", ...bytes },
  list(
    "ssh",
    'SSH agent socket or keys to expose to the build (format: "default|<id>[=<socket>|<key>[,<key>]]")',
  ),
  list("tag", 'Image identifier (format: "[registry/]repository[:tag]")', "t"),
  text("target", "Set the target build stage to build"),
  {
    name: "ulimit",
    kind: "list",
    typeName: "ulimit",
    usage: "Ulimit options (default [])",
    check: (value) => parseUlimit(value),
  },
  list("resource", 'Resource limits for build containers (format: "memory=2g", "cpu-quota=50000")'),
  list("attest", 'Attestation parameters (format: "type=sbom,generator=image")'),
  text("sbom", 'Shorthand for "--attest=type=sbom"'),
  text("provenance", 'Shorthand for "--attest=type=provenance"'),
  {
    ...text("print", "Print result of information request (e.g., outline, targets)"),
    hidden: true,
    aliasOf: "call",
  },
  ...commonBuildFlags,
  ...legacyResourceFlags,
  ...ignoredFlags,
];
