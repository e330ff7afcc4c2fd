/** Kiln's version; replaced when a release is built. */
export const VERSION = "v0.1.0";

/** The commit that a release was built from. */
export const REVISION = "";

/** What `kiln --version` prints. */
export const versionText = `kiln ${VERSION}${REVISION === "" ? "" : ` ${REVISION}`}\n`;
