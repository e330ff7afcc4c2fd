/** A document inside an instruction, `<<EOF`. */
export interface Heredoc {
  readonly name: string;
  readonly fileDescriptor: number;
  /** False when part of the name is quoted: variables stay as they are. */
  readonly expand: boolean;
  /** `<<-`: leading tabs are dropped. */
  readonly chomp: boolean;
  readonly content: string;
}

/** One instruction after the first parse: its words, but not their meaning. Lines count from 1. */
export interface InstructionNode {
  /** As written. */
  readonly keyword: string;
  readonly args: readonly string[];
  readonly flags: readonly string[];
  /** The arguments were a JSON array. */
  readonly json: boolean;
  readonly heredocs: readonly Heredoc[];
  /** The instruction with continuation lines joined. */
  readonly original: string;
  /** Comments directly above, without `#`. */
  readonly comments: readonly string[];
  readonly startLine: number;
  readonly endLine: number;
}
