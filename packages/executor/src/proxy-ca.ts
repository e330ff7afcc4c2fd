import { BuildError, errorMessage } from "@kiln/base";
import type { RootDir } from "./root-dir.ts";

/** Where distributions keep the certificates that everything trusts. */
const BUNDLES = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/pki/tls/cacert.pem",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

const BEGIN = "\n# buildkit proxy CA begin\n";
const END = "# buildkit proxy CA end\n";
const MAX_BUNDLE_BYTES = 10 << 20;
const PEM_BLOCK = /-----BEGIN ([A-Z0-9 ]{1,64})-----\r?\n([A-Za-z0-9+/=\s]*?)-----END \1-----\n?/g;

/** Content of a certificate, whatever its line breaks. */
function bodyOf(pem: string): string {
  return pem.replace(/-----[A-Z0-9 ]+-----|\s+/g, "");
}

function holds(text: string, caPem: string): boolean {
  const wanted = bodyOf(caPem);
  return [...text.matchAll(PEM_BLOCK)].some((match) => bodyOf(match[0]) === wanted);
}

/** A bundle without the certificate: the block that was added, or wherever a tool has moved it. */
export function withoutCa(text: string, caPem: string): string {
  const begin = text.indexOf(BEGIN);
  const end = begin < 0 ? -1 : text.indexOf(END, begin + BEGIN.length);
  if (end >= 0) {
    const after = end + END.length;
    if (holds(text.slice(begin, after), caPem)) return text.slice(0, begin) + text.slice(after);
  }
  const wanted = bodyOf(caPem);
  return text.replace(PEM_BLOCK, (block) => (bodyOf(block) === wanted ? "" : block));
}

/**
 * Adds a certificate to the first trust bundle of a root that exists; nothing happens without one. Returns what
 * takes it out again and leaves everything else that was changed meanwhile.
 *
 * @throws BuildError also from the returned function (`failed to clean up proxy CA: …`)
 */
export function injectCa(root: RootDir, caPem: string): (again: RootDir) => void {
  const bundle = BUNDLES.find((path) => root.lstat(root.resolve(path))?.isFile());
  if (bundle === undefined) return () => undefined;
  const path = root.resolve(bundle);
  const original = root.readFile(path, MAX_BUNDLE_BYTES).toString("latin1");
  if (holds(original, caPem)) return () => undefined;
  const pem = caPem.endsWith("\n") ? caPem : `${caPem}\n`;
  root.replaceFile(path, Buffer.from(original + BEGIN + pem + END, "latin1"));
  return (again) => {
    try {
      if (!again.lstat(path)?.isFile()) return;
      const current = again.readFile(path, MAX_BUNDLE_BYTES).toString("latin1");
      const cleaned = withoutCa(current, pem);
      if (cleaned !== current) again.replaceFile(path, Buffer.from(cleaned, "latin1"));
    } catch (error) {
      throw new BuildError("failed_precondition", `failed to clean up proxy CA: ${errorMessage(error)}`, {
        cause: error,
      });
    }
  };
}
