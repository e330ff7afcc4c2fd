export { runBuildctl } from "./buildctl/buildctl.ts";
export { runKiln } from "./kiln.ts";
