import { Problem } from "../base/problem.ts";
import { chompTabs, heredocIn } from "../syntax/heredoc.ts";
import type { Heredoc, InstructionNode } from "../syntax/node.ts";
import { parseFlags } from "./flags.ts";
import { baseOf } from "./parse-simple.ts";
import type { AddInstruction, CopyInstruction, InlineFile, SourcesAndDest } from "./types.ts";

function needTwo(node: InstructionNode, keyword: string): void {
  if (node.args.length >= 2) return;
  throw new Problem(
    `${keyword} requires at least two arguments, but only one was provided. Destination could not be determined`,
  );
}

export function parseAdd(node: InstructionNode): AddInstruction {
  needTwo(node, "ADD");
  const flags = parseFlags(node.flags, {
    chown: "string",
    chmod: "string",
    link: "bool",
    "keep-git-dir": "bool",
    checksum: "string",
    unpack: "bool",
    exclude: "strings",
  });
  return {
    ...baseOf(node),
    ...sourcesAndDest(node, "ADD"),
    kind: "add",
    chown: flags.text("chown"),
    chmod: flags.text("chmod"),
    link: flags.bool("link") ?? false,
    exclude: flags.list("exclude"),
    keepGitDir: flags.bool("keep-git-dir"),
    checksum: flags.text("checksum"),
    unpack: flags.bool("unpack"),
  };
}

export function parseCopy(node: InstructionNode): CopyInstruction {
  needTwo(node, "COPY");
  const flags = parseFlags(node.flags, {
    chown: "string",
    from: "string",
    chmod: "string",
    link: "bool",
    exclude: "strings",
    parents: "bool",
  });
  return {
    ...baseOf(node),
    ...sourcesAndDest(node, "COPY"),
    kind: "copy",
    from: flags.text("from"),
    chown: flags.text("chown"),
    chmod: flags.text("chmod"),
    link: flags.bool("link") ?? false,
    exclude: flags.list("exclude"),
    parents: flags.bool("parents") ?? false,
  };
}

function sourcesAndDest(node: InstructionNode, keyword: string): SourcesAndDest {
  const dest = node.args.at(-1)!;
  if (heredocIn(dest) !== undefined) throw new Problem(`${keyword} cannot accept a heredoc as a destination`);
  const docs = new Map<string, Heredoc>(node.heredocs.map((doc) => [doc.name, doc]));
  const sources: string[] = [];
  const files: InlineFile[] = [];
  for (const word of node.args.slice(0, -1)) {
    const head = heredocIn(word);
    if (head === undefined) sources.push(word);
    else {
      const content = docs.get(head.name)?.content ?? "";
      files.push({
        path: head.name,
        data: head.chomp ? chompTabs(content) : content,
        expand: head.expand,
      });
    }
  }
  return { sources, files, dest };
}
