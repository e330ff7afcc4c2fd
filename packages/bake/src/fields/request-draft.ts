import type { BakeHost } from "../host.ts";
import type { BuildRequest } from "../request.ts";

/** A build request in the making. */
export type RequestDraft = { -readonly [K in keyof BuildRequest]: BuildRequest[K] };

/** What checking a request looks at. */
export interface RequestHost extends BakeHost {
  /** Standard output is a terminal: archives aren't written to it. */
  readonly stdoutIsTerminal: boolean;
}
