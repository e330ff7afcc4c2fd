import assert from "node:assert/strict";
import { test } from "node:test";
import { compileDockerfile, fixDockerfile, lintDockerfile, parseDockerfile } from "./index.ts";

/** Runs everything on one input and gives the error messages; fails when it takes long. */
async function survive(text: string, limitMs = 10_000): Promise<string[]> {
  const start = performance.now();
  parseDockerfile(text);
  lintDockerfile(text);
  fixDockerfile(text);
  const { diagnostics } = await compileDockerfile(text);
  const tookMs = performance.now() - start;
  assert.ok(tookMs < limitMs, `took ${tookMs.toFixed(0)} ms`);
  return diagnostics.filter(({ severity }) => severity === "error").map(({ message }) => message);
}

test("100,000 lines under an unclosed heredoc", async () => {
  const text = `FROM alpine\nRUN <<EOF\n${"some line of text\n".repeat(100_000)}`;
  assert.deepEqual(await survive(text), ["unterminated heredoc"]);
});

test("many unclosed heredocs on one line", async () => {
  const heads = Array.from({ length: 5000 }, (_, i) => `<<E${i}`).join(" ");
  assert.deepEqual(await survive(`FROM alpine\nRUN cat ${heads}\n${"x\n".repeat(50_000)}`), [
    "unterminated heredoc",
  ]);
});

test("lines of 10 MB", async () => {
  const big = "x".repeat(10 << 20);
  const tooLong = ["dockerfile line greater than max allowed size of 65535"];
  assert.deepEqual(await survive(`FROM alpine\nRUN ${big}\n`), tooLong);
  assert.deepEqual(await survive(`FROM alpine\n# ${big}\n`), tooLong);
  const joined = `FROM alpine\nENV A=${"x".repeat(60_000)}${`\\\n${"y".repeat(60_000)}`.repeat(100)}\n`;
  assert.deepEqual(await survive(joined), []);
});

test("deep nesting", async () => {
  for (const depth of [900, 20_000]) {
    const word = `${"${A:-".repeat(depth)}x${"}".repeat(depth)}`;
    const errors = await survive(`FROM alpine\nENV B=\\\n${word.replaceAll(/.{50000}/g, "$&\\\n")}\n`);
    assert.equal(errors.length, depth < 1000 ? 0 : 1);
  }
  const lists = "[".repeat(30_000);
  assert.deepEqual(await survive(`FROM alpine\nCMD ${lists}\n`), []);
  await survive(`FROM alpine\n${"ONBUILD ".repeat(7000)}RUN x\n`);
});

test("patterns that make backtracking matchers slow", async () => {
  const stars = "*a".repeat(200);
  await survive(
    `FROM alpine\nENV A=${"a".repeat(5000)} \nENV B=\${A##${stars}b} C=\${A//${stars}b/x} D=\${A%${stars}b}\n`,
  );
});

test("NUL, byte order marks, lone surrogates and odd line ends", async () => {
  await survive("\ufeffFROM alpine\0\nRUN a\0b\n");
  await survive("FROM alpine\r\r\n\rRUN x\u2028y\u0085\n");
  await survive("FROM alpine\nLABEL a=\ud800 \udc80=b\nRUN \udfff\n");
});

test("names of JavaScript's own", async () => {
  const text = [
    "ARG __proto__=a constructor=b toString",
    "FROM alpine AS constructor",
    "ENV __proto__=x hasOwnProperty=y",
    "LABEL __proto__=z",
    "ARG __proto__",
    // biome-ignore lint/suspicious/noTemplateCurlyInString: a Dockerfile's variables
    "RUN --mount=type=secret,id=__proto__ echo $constructor ${valueOf:-d}",
    "COPY --from=constructor --__proto__=1 a b",
  ];
  assert.match((await survive(text.join("\n")))[0]!, /unknown flag: --__proto__/);
  const { image } = await compileDockerfile(text.slice(0, -1).join("\n"));
  assert.match(image!, /"Labels":\{"__proto__":"z"\}/);
  assert.equal(({} as Record<string, unknown>).x, undefined);
});

test("many stages, flags, arguments and words", async () => {
  const stages = Array.from({ length: 3000 }, (_, i) => `FROM ${i === 0 ? "alpine" : `s${i - 1}`} AS s${i}`);
  assert.deepEqual(await survive(stages.join("\n")), []);
  const words = Array.from({ length: 9000 }, (_, i) => `K${i}=v`).join(" ");
  assert.deepEqual(await survive(`FROM alpine\nENV ${words.slice(0, 60_000)}\nRUN x\n`), []);
  await survive(`FROM alpine\nRUN ${"--mount=type=tmpfs,target=/x ".repeat(2000)} y\n`);
  await survive(`FROM alpine\nEXPOSE 0-65535\n`);
});
