// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables of Dockerfiles
import fc from "fast-check";

const WORDS = [
  "a",
  "$A",
  "${A:-b}",
  "${A//x*/y}",
  "${",
  "'",
  '"',
  "\\",
  "`",
  "<<EOF",
  "<<-'E F'",
  "EOF",
  "--from=s0",
  "--mount=type=cache,target=/x",
  "--link",
  "--chmod=u+x",
  '["a", "b"]',
  "[",
  "https://h/r.git#a:b",
  "A=b",
  "=",
  "#",
  "/./",
  "\\\n",
  "\t",
  "é",
  "\ud83d",
  "\0",
  "AS",
  "s0",
  "alpine",
  "scratch",
  "80/tcp",
];
const KEYWORDS =
  "FROM RUN COPY ADD ENV ARG LABEL WORKDIR USER EXPOSE VOLUME CMD ENTRYPOINT HEALTHCHECK SHELL STOPSIGNAL ONBUILD MAINTAINER from bogus #".split(
    " ",
  );

const word = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom(...WORDS) },
  { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 12 }) },
);

const line = fc
  .tuple(fc.constantFrom(...KEYWORDS), fc.array(word, { maxLength: 6 }), fc.constantFrom(" ", "", "\t"))
  .map(([keyword, words, separator]) => `${keyword} ${words.join(separator)}`);

/** Texts that look like Dockerfiles, more or less. */
export const dockerfileText: fc.Arbitrary<string> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.array(line, { maxLength: 12 }).map((lines) => `FROM alpine AS s0\n${lines.join("\n")}`),
  },
  { weight: 3, arbitrary: fc.array(line, { maxLength: 12 }).map((lines) => lines.join("\n")) },
  { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 200 }) },
);
