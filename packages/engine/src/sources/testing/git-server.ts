import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const IDENTITY = {
  GIT_AUTHOR_NAME: "a",
  GIT_AUTHOR_EMAIL: "a@example.com",
  GIT_COMMITTER_NAME: "c",
  GIT_COMMITTER_EMAIL: "c@example.com",
  GIT_AUTHOR_DATE: "1700000000 +0000",
  GIT_COMMITTER_DATE: "1700000000 +0000",
  GIT_CONFIG_GLOBAL: "/dev/null",
  GIT_CONFIG_NOSYSTEM: "1",
  PATH: process.env.PATH ?? "",
};

/** Git repositories served over HTTP on a loopback port, by git's own CGI program. */
export class GitServer implements AsyncDisposable {
  readonly root = mkdtempSync(join(tmpdir(), "kiln-git-server-"));
  readonly authorizations: (string | undefined)[] = [];
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((req, res) => {
      this.authorizations.push(req.headers.authorization);
      const url = new URL(req.url ?? "/", "http://x");
      const child = spawn("git", ["http-backend"], {
        env: {
          ...IDENTITY,
          GIT_PROJECT_ROOT: this.root,
          GIT_HTTP_EXPORT_ALL: "1",
          PATH_INFO: url.pathname,
          QUERY_STRING: url.search.slice(1),
          REQUEST_METHOD: req.method ?? "GET",
          CONTENT_TYPE: req.headers["content-type"] ?? "",
          HTTP_CONTENT_ENCODING: String(req.headers["content-encoding"] ?? ""),
          GIT_PROTOCOL: String(req.headers["git-protocol"] ?? ""),
          REMOTE_ADDR: "127.0.0.1",
        },
      });
      child.stdin.on("error", () => undefined);
      req.pipe(child.stdin);
      const chunks: Buffer[] = [];
      child.stdout.on("data", (data: Buffer) => chunks.push(data));
      child.on("close", () => {
        const output = Buffer.concat(chunks);
        const end = output.indexOf("\r\n\r\n");
        const headers: Record<string, string> = {};
        let status = 200;
        for (const line of output.subarray(0, end).toString().split("\r\n")) {
          const [name, ...value] = line.split(": ");
          if (name === "Status") status = Number(value[0]?.slice(0, 3));
          else headers[name!] = value.join(": ");
        }
        res.writeHead(status, headers).end(output.subarray(end + 4));
      });
    });
  }

  static async start(): Promise<GitServer> {
    const server = new GitServer();
    await new Promise<void>((resolve) => server.#server.listen(0, "127.0.0.1", resolve));
    return server;
  }

  /** `127.0.0.1:port`. */
  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Runs git in a repository below the root; its output, trimmed. */
  git(repository: string, ...args: readonly string[]): string {
    return execFileSync("git", ["-C", join(this.root, repository), ...args], {
      env: IDENTITY,
      stdio: ["ignore", "pipe", "pipe"],
    })
      .toString()
      .trim();
  }

  /** Makes a repository with a work tree, on the branch `master`. */
  init(repository: string): string {
    execFileSync("git", ["init", "-q", "-b", "master", join(this.root, repository)], { env: IDENTITY });
    this.git(repository, "config", "uploadpack.allowReachableSHA1InWant", "true");
    return join(this.root, repository);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    rmSync(this.root, { recursive: true, force: true });
  }
}
