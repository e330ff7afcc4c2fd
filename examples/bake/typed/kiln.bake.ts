/// <reference path="./kiln-bake.d.ts" />
import { defineBake, type TargetDefinition } from "@kiln/bake";

const services = ["api", "web"];

export default defineBake(({ variable }) => {
  const tag = variable("TAG", "dev", "Tag of all images");
  const release = variable("RELEASE", false, "Build for all platforms");

  const service = (name: string): TargetDefinition => ({
    context: name,
    tags: [`registry.example/${name}:${tag}`],
    args: { TAG: tag },
    platforms: release ? ["linux/amd64", "linux/arm64"] : undefined,
  });

  return {
    groups: { default: services },
    targets: Object.fromEntries(services.map((name) => [name, service(name)])),
  };
});
