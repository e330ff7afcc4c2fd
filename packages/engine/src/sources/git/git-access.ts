import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DisposableStore } from "@kiln/base";
import type { OpContext } from "../../op-context.ts";
import { invalid } from "../source-attrs.ts";
import type { SourceSessions } from "../source-sessions.ts";
import { GitCli as Cli, type GitCli, type GitConfig, userinfoOf } from "./git-cli.ts";
import type { GitRequest } from "./git-request.ts";

/** Token and header for a remote, from the secrets of the build's sessions. Empty without any. */
export async function authConfig(
  request: GitRequest,
  sessions: SourceSessions,
  ctx: OpContext,
): Promise<GitConfig> {
  const ids = ctx.sessions.ids();
  const host = /^[a-z]+:\/\/(?:[^/@]*@)?([^/]*)/.exec(request.remote)?.[1] ?? "";
  const candidates = [`.${host}`, ""].flatMap((suffix) => [
    { name: request.authHeaderSecret, suffix, token: false },
    { name: request.authTokenSecret, suffix, token: true },
  ]);
  for (const { name, suffix, token } of candidates) {
    if (name === "") continue;
    const data = await sessions.secret(ids, name + suffix, ctx.signal);
    if (data === undefined) continue;
    const text = Buffer.from(data).toString();
    const value = token ? `basic ${Buffer.from(`x-access-token:${text}`).toString("base64")}` : text;
    if (/[\r\n\0]/.test(value)) throw invalid(`invalid git auth secret ${name}`);
    return [
      [
        `http.${tokenScope(userinfoOf(request.remote)?.bare ?? request.remote)}.extraheader`,
        `Authorization: ${value}`,
      ],
    ];
  }
  return [];
}

/** A token for one repository on GitHub is good for the submodules next to it. */
function tokenScope(remote: string): string {
  for (const prefix of ["https://github.com/", "https://www.github.com/"]) {
    if (remote.startsWith(prefix)) return prefix;
  }
  return remote;
}

/** Git with the request's SSH agent and known hosts, for as long as it isn't disposed of. */
export async function openGit(
  request: GitRequest,
  config: GitConfig,
  at: { readonly sessions: SourceSessions; readonly ctx: OpContext },
): Promise<{ readonly git: GitCli; readonly cleanup: DisposableStore }> {
  const { sessions, ctx } = at;
  await using opening = new DisposableStore();
  let sshAgentSocket: string | undefined;
  let knownHostsFile: string | undefined;
  if (request.sshId !== "") {
    const socket = opening.use(await sessions.sshSocket(ctx.sessions.ids(), request.sshId, ctx.signal));
    sshAgentSocket = socket.path;
  }
  if (request.knownSshHosts !== "") {
    const dir = await mkdtemp(join(tmpdir(), "kiln-known-hosts-"));
    opening.defer(() => rm(dir, { recursive: true, force: true }));
    await chmod(dir, 0o700);
    knownHostsFile = join(dir, "known_hosts");
    await writeFile(knownHostsFile, request.knownSshHosts);
  }
  const git = new Cli({
    config,
    userinfo: userinfoOf(request.remote),
    advice: request.advice,
    progress: ctx.progress,
    signal: ctx.signal,
    ...(sshAgentSocket === undefined ? {} : { sshAgentSocket }),
    ...(knownHostsFile === undefined ? {} : { knownHostsFile }),
  });
  return { git, cleanup: opening.move() };
}
