import { BuildError } from "@kiln/base";
import { createQuietDisplay, type Display, type DisplayOptions } from "./display.ts";
import { createPlainDisplay } from "./plain-display.ts";
import { createRawJsonDisplay } from "./rawjson-display.ts";
import { createTtyDisplay, type TerminalOutput } from "./tty-display.ts";

/** The values of `--progress`. */
export type ProgressMode = "auto" | "none" | "plain" | "quiet" | "rawjson" | "tty";

/**
 * Makes the display of a mode. `auto` is `tty` on a terminal and `plain` elsewhere; `none` shows as little as
 * `quiet`.
 *
 * @throws BuildError `invalid_argument` for an unknown mode and for `tty` without a terminal.
 */
export function createDisplay(mode: string, output: TerminalOutput, options: DisplayOptions): Display {
  const isTerminal = output.size() !== undefined;
  switch (mode as ProgressMode | "") {
    case "":
    case "auto":
      return isTerminal ? createTtyDisplay(output, options) : createPlainDisplay(output, options);
    case "tty":
      if (isTerminal) return createTtyDisplay(output, options);
      throw new BuildError("invalid_argument", "failed to get console: provided file is not a console");
    case "plain":
      return createPlainDisplay(output, options);
    case "rawjson":
      return createRawJsonDisplay(output);
    case "none":
    case "quiet":
      return createQuietDisplay();
    default:
      throw new BuildError("invalid_argument", `invalid progress mode ${mode}`);
  }
}
