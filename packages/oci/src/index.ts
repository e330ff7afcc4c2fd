export * from "./digest.ts";
export * from "./encode.ts";
export * from "./image-config.ts";
export * from "./manifest.ts";
export * from "./media-types.ts";
export * from "./platform.ts";
export * from "./platform-match.ts";
export * from "./reference.ts";
export { hexFromBytes, Sha256, sha256Hex } from "./sha256.ts";
