import assert from "node:assert/strict";
import { realpathSync } from "node:fs";
import { dirname } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { startImage, type UnpackedImage, unpackFromRegistry } from "./support/image-run.ts";
import { gatherMachineAccess } from "./support/machine.ts";
import { freePort } from "./support/registry.ts";
import { must } from "./support/run.ts";
import { openTestBed, type TestBed } from "./support/test-bed.ts";

let bed: TestBed;

before(async () => {
  bed = await openTestBed("node-service", { debian: true });
});

after(async () => {
  await bed?.[Symbol.asyncDispose]();
});

/** This machine's own Node and npm on the Debian image. */
const NODE_DOCKERFILE = `FROM debian:stable-slim
COPY --from=node-bin node /usr/local/bin/node
COPY --from=npm . /usr/local/lib/node_modules/npm
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm && node --version && npm --version
CMD ["node"]
`;

const DOCKERFILE = `FROM node:current AS dependencies
WORKDIR /app
COPY package.json package-lock.json .
RUN --mount=type=cache,target=/root/.npm \\
    --mount=type=secret,id=npmrc,target=/root/.npmrc \\
    --mount=type=secret,id=ca,target=/run/ca.crt \\
    NODE_EXTRA_CA_CERTS=/run/ca.crt npm ci --omit=dev --no-audit --no-fund --no-update-notifier

FROM node:current AS build
WORKDIR /app
COPY --from=dependencies /app/node_modules node_modules
COPY --parents src/*.js .
ARG VERSION=dev
RUN mkdir dist && sed "s/@VERSION@/$VERSION/" src/server.js > dist/server.js && node --check dist/server.js

FROM debian:stable-slim
RUN useradd --uid 10001 --create-home service
COPY --link --from=node:current /usr/local/bin/node /usr/local/bin/node
WORKDIR /app
COPY --from=dependencies --chown=service /app/node_modules node_modules
COPY --from=build --chown=service /app/dist dist
ARG PORT=8080
ENV NODE_ENV=production PORT=$PORT
EXPOSE $PORT/tcp
HEALTHCHECK --interval=5s CMD ["node", "-e", "fetch('http://127.0.0.1:' + process.env.PORT)"]
STOPSIGNAL SIGINT
USER service
CMD ["node", "dist/server.js"]
`;

const INTEGRITY =
  "sha512-6FlzubTLZG3J2a/NVCAleEhjzq5oxgHyaCU9yYXvcLsvoVaHJq/s5xXI6/XXP6tz7R9xAOtHnSO/tXtF3WRTlA==";
const PACKAGE = { name: "service", version: "1.0.0", dependencies: { ms: "2.1.3" } };
const LOCK = {
  ...{ name: "service", version: "1.0.0", lockfileVersion: 3, requires: true },
  packages: {
    "": PACKAGE,
    "node_modules/ms": { version: "2.1.3", integrity: INTEGRITY, license: "MIT" },
  },
};

const FILES = {
  Dockerfile: DOCKERFILE,
  ".dockerignore": "node_modules\n*.md\n",
  "README.md": "not in the context",
  "package.json": JSON.stringify(PACKAGE),
  "package-lock.json": JSON.stringify(LOCK),
  "src/server.js": `const http = require("node:http");
const ms = require("ms");
http
  .createServer((request, response) => {
    const answer = { version: "@VERSION@", uid: process.getuid(), env: process.env.NODE_ENV, twoDays: ms("2 days") };
    response.end(JSON.stringify(answer));
  })
  .listen(Number(process.env.PORT), "127.0.0.1", () => console.log("listening"));
`,
};

async function pushNode(): Promise<void> {
  const npm = dirname(dirname(realpathSync((await must("sh", ["-c", "command -v npm"])).trim())));
  const context = bed.context("node-base", { Dockerfile: NODE_DOCKERFILE });
  const contexts = [
    "--build-context",
    `node-bin=${dirname(process.execPath)}`,
    "--build-context",
    `npm=${npm}`,
  ];
  await bed.build([context, ...contexts, "--push", "-t", `${bed.registry.host}/library/node:current`]);
}

async function answerOf(image: UnpackedImage, port: number): Promise<unknown> {
  await using container = startImage(image);
  for (let attempt = 0; attempt < 300; attempt++) {
    if (container.output().includes("listening")) {
      return await (await fetch(`http://127.0.0.1:${port}/`)).json();
    }
    await sleep(100);
  }
  throw new Error(`the service doesn't listen:\n${container.output()}`);
}

test("a Node.js service is built, pushed, pulled and answers", async () => {
  await pushNode();
  const machine = gatherMachineAccess(bed.folder);
  const port = await freePort();
  const tag = `${bed.registry.host}/service:1`;
  const args = ["--network=host", "--allow=network.host", ...machine.buildArgs, "--push", "-t", tag];
  args.push("--build-arg", `PORT=${port}`);
  await bed.build([bed.context("service", FILES), "--build-arg", "VERSION=1.2.3", ...args]);

  const image = await unpackFromRegistry(bed.folder, tag);
  const config = image.config.config ?? {};
  assert.equal(config.User, "service");
  assert.equal(config.WorkingDir, "/app");
  assert.equal(config.StopSignal, "SIGINT");
  assert.deepEqual(config.ExposedPorts, { [`${port}/tcp`]: {} });
  const expected = { version: "1.2.3", uid: 10001, env: "production", twoDays: 172_800_000 };
  assert.deepEqual(await answerOf(image, port), expected);

  const progress = await bed.build([bed.context("service", FILES), "--build-arg", "VERSION=1.2.4", ...args]);
  assert.match(progress, /\[dependencies 4\/4\] RUN[^\n]*\n#\d+ CACHED/);
  const next = await unpackFromRegistry(bed.folder, tag);
  assert.deepEqual(await answerOf(next, port), { ...expected, version: "1.2.4" });
});
