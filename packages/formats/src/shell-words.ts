import { BuildError } from "@kiln/base";

type State = "start" | "word" | "escape" | "quotedEscape" | "double" | "single" | "comment";

/**
 * Words of a shell-like line (google/shlex): quotes, backslashes, `#` comments at the start of a word. No
 * expansion. Throws `invalid_argument` when a quote or escape is left open.
 */
export function shellWords(text: string): string[] {
  const words: string[] = [];
  let state: State = "start";
  let word = "";
  for (const c of text) {
    switch (state) {
      case "start":
      case "word":
        if (c === " " || c === "\t" || c === "\r" || c === "\n") {
          if (state === "word") words.push(word);
          word = "";
          state = "start";
        } else if (c === '"') state = "double";
        else if (c === "'") state = "single";
        else if (c === "\\") state = "escape";
        else if (c === "#" && state === "start") state = "comment";
        else {
          word += c;
          state = "word";
        }
        break;
      case "escape":
        word += c;
        state = "word";
        break;
      case "quotedEscape":
        word += c;
        state = "double";
        break;
      case "double":
        if (c === '"') state = "word";
        else if (c === "\\") state = "quotedEscape";
        else word += c;
        break;
      case "single":
        if (c === "'") state = "word";
        else word += c;
        break;
      case "comment":
        if (c === "\n") state = "start";
        break;
    }
  }
  if (state === "escape" || state === "quotedEscape") throw open("EOF found after escape character");
  if (state === "double" || state === "single") throw open("EOF found when expecting closing quote");
  if (state === "word") words.push(word);
  return words;
}

function open(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
