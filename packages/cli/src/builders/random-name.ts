import { randomInt } from "node:crypto";

const ADJECTIVES =
  "admiring bold brave bright calm clever cool eager elastic epic fervent focused friendly gentle happy hopeful jolly keen kind lucid merry modest nifty noble patient quiet quirky serene sharp silly sleepy stoic sunny sweet tender trusting upbeat vibrant vigilant vivid warm wise witty youthful zealous zen".split(
    " ",
  );
const SURNAMES =
  "babbage bell bohr boole cerf clarke curie darwin dijkstra edison einstein euclid euler faraday fermat fermi feynman franklin galileo gauss goodall hamilton hawking heisenberg hopper hypatia kepler knuth lamarr leakey liskov lovelace maxwell mendel moore morse newton nobel noether pascal payne perlman ritchie sinoussi tesla thompson torvalds turing volta wing wozniak".split(
    " ",
  );

/** A name for a builder, such as `quiet_hopper`; from the fourth try on with a digit. */
export function randomName(attempt: number): string {
  const pick = (words: readonly string[]): string => words[randomInt(words.length)] as string;
  return `${pick(ADJECTIVES)}_${pick(SURNAMES)}${attempt > 2 ? randomInt(10) : ""}`;
}
