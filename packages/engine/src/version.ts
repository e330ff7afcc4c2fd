/** The version of BuildKit whose contract this is; clients decide by it what they may ask for. */
export const KILN_BUILDKIT_VERSION = "v0.34.0";

/** Package and revision that `Info` and `--version` name beside it. */
export const KILN_PACKAGE = "github.com/moby/buildkit";
export const KILN_REVISION = "kiln";

/** Version of the Dockerfile language that the built-in frontend speaks, as provenance names it. */
export const DOCKERFILE_VERSION = "1.27.0";
