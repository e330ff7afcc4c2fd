import type { CommandFacts } from "./fix.ts";
import type { Edit, InstructionText } from "./instruction-text.ts";

/** Words that mean themselves to every shell. */
const PLAIN_WORD = /^[A-Za-z0-9_./:@%+,-]+(?:=[A-Za-z0-9_./:@%+,=-]*)?$/;
const COMMAND = /^[A-Za-z0-9_./+-]+$/;
const BUILTINS: ReadonlySet<string> = new Set(
  ". : alias bg break case cd command continue do done elif else esac eval exec exit export fg fi for getopts hash if in jobs local read readonly return set shift source then times trap type typeset ulimit umask unalias unset until wait while".split(
    " ",
  ),
);

/**
 * `CMD a b` as `CMD ["a", "b"]`, where the shell would do nothing but start the program. Left alone with a
 * SHELL above, for builtins, and where a CMD and an ENTRYPOINT meet.
 */
export function jsonArgsEdit(source: InstructionText, facts: CommandFacts): Edit | undefined {
  const { node, body, line } = source;
  if (line === undefined || node.json || facts.hasShell || node.args.length !== 1) return undefined;
  if (facts.mixed.has(node.startLine)) return undefined;
  const words = node.args[0]!.split(/[ \t]+/);
  const [command] = words;
  if (command === undefined || !COMMAND.test(command) || BUILTINS.has(command)) return undefined;
  if (!words.every((word) => PLAIN_WORD.test(word))) return undefined;
  const lead = /^\s*/.exec(line)![0].length;
  const tail = line.length - line.trimEnd().length;
  return {
    start: body.start + lead,
    end: body.end - tail,
    text: `[${words.map((word) => `"${word}"`).join(", ")}]`,
    rule: "JSONArgsRecommended",
  };
}
