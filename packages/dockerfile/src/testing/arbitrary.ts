import fc from "fast-check";
import { KEYWORDS, WORDS } from "./random-dockerfile.ts";

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
