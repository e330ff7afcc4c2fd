import { BuildError, redactUrls } from "@kiln/base";
import type { ProgressWriter } from "@kiln/solver";
import { type ProgramResult, runProgram } from "../run-program.ts";
import { isCommitSha } from "./git-url.ts";

/** One `key=value` of git's configuration; values may be secret. */
export type GitConfig = readonly (readonly [key: string, value: string])[];

/** Settings of a {@link GitCli}. */
export interface GitCliOptions {
  readonly gitDir?: string;
  readonly workTree?: string;
  /** Goes to git in its environment, so that no other user can read it. */
  readonly config?: GitConfig;
  /** User name and password of the remote; see {@link userinfoOf}. */
  readonly userinfo?: Userinfo | undefined;
  readonly sshAgentSocket?: string;
  readonly knownHostsFile?: string;
  readonly advice?: boolean;
  readonly progress?: ProgressWriter;
  readonly signal: AbortSignal;
}

const PROXY_VARIABLES = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"].flatMap((name) => [
  name,
  name.toLowerCase(),
]);

/**
 * Configuration that holds for every call: only network protocols that a user may name (and `file` for our
 * own folders, never for submodules), no hooks, no helpers of the repository.
 */
const HARDENING: GitConfig = [
  ["protocol.allow", "never"],
  ["protocol.http.allow", "always"],
  ["protocol.https.allow", "always"],
  ["protocol.ssh.allow", "always"],
  ["protocol.git.allow", "always"],
  ["protocol.file.allow", "user"],
  ["core.hooksPath", "/dev/null"],
  ["core.fsmonitor", "false"],
  ["core.protectNTFS", "true"],
  ["core.protectHFS", "true"],
  ["credential.helper", ""],
  ["init.defaultBranch", "master"],
];

/** The machine's git, without its configuration, without prompts, for repositories that nobody trusts. */
export class GitCli {
  readonly options: GitCliOptions;

  constructor(options: GitCliOptions) {
    this.options = options;
  }

  /** The same with other settings. */
  with(options: Partial<GitCliOptions>): GitCli {
    return new GitCli({ ...this.options, ...options });
  }

  /**
   * Runs a command; its output goes to the vertex's log, too.
   *
   * Servers that don't know shallow clones or don't give single commits are asked again without.
   *
   * @throws BuildError `unknown` with git's stderr.
   */
  async run(...args: readonly string[]): Promise<Buffer> {
    let current = args;
    for (;;) {
      const result = await this.#call(current);
      if (result.code === 0) return result.stdout;
      const retry = withoutRefused(current, result.stderr);
      if (retry === undefined) throw failure(current, result);
      current = retry;
    }
  }

  /** {@link run}, its output trimmed. */
  async text(...args: readonly string[]): Promise<string> {
    return (await this.run(...args)).toString().trim();
  }

  /** True when the command succeeds; no log. */
  async succeeds(...args: readonly string[]): Promise<boolean> {
    const result = await this.#call(args, true);
    return result.code === 0;
  }

  #call(args: readonly string[], quiet = false): Promise<ProgramResult> {
    const { gitDir, workTree, signal, progress } = this.options;
    const all: string[] = [];
    if (workTree !== undefined) all.push("--work-tree", workTree);
    if (gitDir !== undefined) all.push("--git-dir", gitDir);
    const { userinfo } = this.options;
    for (const arg of args) all.push(arg === userinfo?.address ? userinfo.bare : arg);
    const encoder = (data: Buffer): Uint8Array => Buffer.from(redactUrls(data.toString("latin1")), "latin1");
    return runProgram("git", all, {
      signal,
      env: this.#env(),
      ...(workTree === undefined ? {} : { cwd: workTree }),
      ...(progress === undefined || quiet
        ? {}
        : { onOutput: (stream: 1 | 2, data: Buffer) => progress.log(stream, encoder(data)) }),
    });
  }

  #env(): Record<string, string> {
    const { config = [], userinfo, sshAgentSocket, knownHostsFile, advice } = this.options;
    const env: Record<string, string> = {
      PATH: process.env.PATH ?? "",
      LC_ALL: "C",
      HOME: "/dev/null",
      GIT_TERMINAL_PROMPT: "0",
      GIT_CONFIG_NOSYSTEM: "1",
      GIT_CONFIG_GLOBAL: "/dev/null",
      GIT_SSH_COMMAND: sshCommand(knownHostsFile),
      // No smudge filter of git-lfs, should a machine have one built in.
      GIT_LFS_SKIP_SMUDGE: "1",
    };
    if (advice) env.GIT_ADVICE = "1";
    else env.GIT_ADVICE = "0";
    if (sshAgentSocket !== undefined) env.SSH_AUTH_SOCK = sshAgentSocket;
    for (const name of PROXY_VARIABLES) {
      const value = process.env[name];
      if (value !== undefined) env[name] = value;
    }
    const detached: GitConfig = advice ? [] : [["advice.detachedHead", "false"]];
    const entries = [...HARDENING, ...detached, ...credentialConfig(userinfo), ...config];
    if (userinfo !== undefined) {
      env[USERNAME] = userinfo.username;
      env[PASSWORD] = userinfo.password;
    }
    env.GIT_CONFIG_COUNT = String(entries.length);
    for (const [i, [key, value]] of entries.entries()) {
      env[`GIT_CONFIG_KEY_${i}`] = key;
      env[`GIT_CONFIG_VALUE_${i}`] = value;
    }
    return env;
  }
}

/** An HTTP address with a user name, taken apart. */
export interface Userinfo {
  readonly address: string;
  /** The address without it. */
  readonly bare: string;
  readonly username: string;
  readonly password: string;
}

const USERNAME = "KILN_GIT_USERNAME";
const PASSWORD = "KILN_GIT_PASSWORD";

/**
 * Takes user name and password out of an HTTP address; undefined without any. A {@link GitCli} that has them keeps them
 * out of arguments (its own and those of git's programs) and of git's files: git asks for them when the server does.
 */
export function userinfoOf(remote: string): Userinfo | undefined {
  const match = /^(https?:\/\/)([^/?#]*)@/i.exec(remote);
  if (!match) return undefined;
  const [whole, scheme = "", userinfo = ""] = match;
  const colon = userinfo.indexOf(":");
  return {
    address: remote,
    bare: scheme + remote.slice(whole.length),
    username: decoded(colon < 0 ? userinfo : userinfo.slice(0, colon)),
    password: colon < 0 ? "" : decoded(userinfo.slice(colon + 1)),
  };
}

/** Line ends would be further answers to git. */
function decoded(text: string): string {
  let plain = text;
  try {
    plain = decodeURIComponent(text);
  } catch {
    // Not encoded, then.
  }
  if (/[\r\n\0]/.test(plain))
    throw new BuildError("invalid_argument", "invalid user name or password in a git URL");
  return plain;
}

/** Only for this one repository, wherever redirects and submodules lead. */
function credentialConfig(userinfo: Userinfo | undefined): GitConfig {
  if (userinfo === undefined) return [];
  const answer = `printf 'username=%s\\npassword=%s\\n' "$${USERNAME}" "$${PASSWORD}"`;
  return [
    ["credential.useHttpPath", "true"],
    [`credential.${userinfo.bare}.helper`, `!f() { test "$1" = get && ${answer}; }; f`],
  ];
}

function sshCommand(knownHostsFile: string | undefined): string {
  const hosts =
    knownHostsFile === undefined ? "StrictHostKeyChecking=no" : `UserKnownHostsFile=${knownHostsFile}`;
  return `ssh -F /dev/null -o ${hosts}`;
}

function withoutRefused(args: readonly string[], stderr: string): readonly string[] | undefined {
  if (stderr.includes("--depth") || stderr.includes("shallow")) {
    const without = args.filter((arg) => arg !== "--depth=1");
    if (without.length < args.length) return without;
  }
  if (stderr.includes("not our ref") || stderr.includes("unadvertised object")) {
    if (args.length > 2 && args[0] === "fetch" && isCommitSha(args.at(-1)!)) return args.slice(0, -1);
  }
  return undefined;
}

function failure(args: readonly string[], result: ProgramResult): BuildError {
  const how = result.killedBy === null ? `exit status ${result.code}` : `signal: ${result.killedBy}`;
  return new BuildError("unknown", `git stderr:\n${redactUrls(result.stderr)}: ${how}`, {
    cause: new Error(`git ${args[0] ?? ""} failed`),
  });
}
