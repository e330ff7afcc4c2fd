export * from "./frontend/backend.ts";
export { buildDockerfile } from "./frontend/build.ts";
