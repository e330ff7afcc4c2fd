// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables of Dockerfiles
/** What arguments are made of. */
export const WORDS = [
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

/** What lines begin with. */
export const KEYWORDS =
  "FROM RUN COPY ADD ENV ARG LABEL WORKDIR USER EXPOSE VOLUME CMD ENTRYPOINT HEALTHCHECK SHELL STOPSIGNAL ONBUILD MAINTAINER from bogus #".split(
    " ",
  );

/** Gives whole numbers from 0 up to, not including, `below`. */
export type Random = (below: number) => number;

/** Numbers that depend on `seed` only (splitmix32). */
export function randomFrom(seed: number): Random {
  let state = seed | 0;
  return (below) => {
    state = (state + 0x9e3779b9) | 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return Math.floor((((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32) * below);
  };
}

/** The texts of `arbitrary.ts`, without what fast-check needs to shrink them: many times as fast. */
export function randomDockerfile(random: Random): string {
  const kind = random(10);
  if (kind === 9) return randomCharacters(random, 200);
  const lines = Array.from({ length: random(13) }, () => randomLine(random));
  return `${kind < 6 ? "FROM alpine AS s0\n" : ""}${lines.join("\n")}`;
}

function randomLine(random: Random): string {
  const words = Array.from({ length: random(7) }, () =>
    random(9) === 0 ? randomCharacters(random, 12) : WORDS[random(WORDS.length)],
  );
  return `${KEYWORDS[random(KEYWORDS.length)]} ${words.join(["", " ", "\t"][random(3)])}`;
}

function randomCharacters(random: Random, most: number): string {
  let text = "";
  for (let left = random(most + 1); left > 0; left--) {
    // mostly what means something, some of everything
    const width = [0x80, 0x80, 0x80, 0x800, 0x110000][random(5)] as number;
    const code = random(width);
    text += String.fromCodePoint(code >= 0xd800 && code < 0xdc00 ? code - 0xd800 : code);
  }
  return text;
}
