/** Metadata keys of the session tunnel and of the services on it. Source: BuildKit's wire contract. */
export const sessionHeaders = {
  id: "x-docker-expose-session-uuid",
  name: "x-docker-expose-session-name",
  sharedKey: "x-docker-expose-session-sharedkey",
  sharedKeyEncoded: "x-docker-expose-session-sharedkey-encoded",
  method: "x-docker-expose-session-grpc-method",
  healthTimeout: "x-buildkit-session-health-custom-timeout",
  dirName: "dir-name",
  includePatterns: "include-patterns",
  excludePatterns: "exclude-patterns",
  followPaths: "followpaths",
  exporterMetaPrefix: "exporter-md-",
  exporterId: "buildkit-attachable-exporter-id",
  multiPlatform: "buildkit-exporter-multi-platform",
  storeId: "buildkit-attachable-store-id",
  sshId: "buildkit.ssh.id",
  urlPath: "urlpath",
  urlHost: "urlhost",
} as const;

/** Id of the SSH agent when none is named. */
export const defaultSshId = "default";

/** Largest secret that a client sends. */
export const maxSecretBytes = 500 * 1024;

/** Largest chunk of a byte stream in one message. */
export const maxChunkBytes = 3 << 20;

/** Go's `url.QueryEscape`. */
export function queryEscape(text: string): string {
  let out = "";
  for (const byte of new TextEncoder().encode(text)) {
    const char = String.fromCharCode(byte);
    if (/[A-Za-z0-9_.~-]/.test(char)) out += char;
    else out += char === " " ? "+" : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return out;
}

/** Go's `url.QueryUnescape`; undefined for a broken escape. */
export function queryUnescape(text: string): string | undefined {
  const bytes: number[] = [];
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i);
    if (char === 0x25) {
      const hex = text.slice(i + 1, i + 3);
      if (!/^[0-9a-fA-F]{2}$/.test(hex)) return undefined;
      bytes.push(Number.parseInt(hex, 16));
      i += 2;
    } else if (char === 0x2b) bytes.push(0x20);
    else bytes.push(char & 0xff);
  }
  return Buffer.from(bytes).toString("utf8");
}

/** Lines for a list of values; when one isn't ASCII, all are escaped and `<key>-encoded` says so. */
export function listLines(key: string, values: readonly string[]): [string, string][] {
  if (values.every((v) => /^[\x20-\x7e]*$/.test(v))) return values.map((v) => [key, v]);
  return [...values.map((v): [string, string] => [key, queryEscape(v)]), [`${key}-encoded`, "1"]];
}

/** Reverse of {@link listLines}. */
export function listFromLines(values: readonly string[], encoded: string | undefined): string[] {
  if (!isTrue(encoded)) return [...values];
  return values.map((v) => queryUnescape(v) ?? "");
}

/** Go's `strconv.ParseBool`, false for what it refuses. */
export function isTrue(text: string | undefined): boolean {
  return text !== undefined && ["1", "t", "T", "TRUE", "true", "True"].includes(text);
}
