import { ContentClient } from "../content/client.ts";
import type { SessionCaller } from "./caller.ts";

/** A content store that a client shares: `export`, `local:<dir>` or `oci:<name>`. */
export function contentOf(caller: SessionCaller, storeId: string): ContentClient {
  return new ContentClient(caller.channel, { storeId, signal: caller.signal });
}
