/** What the type URL of every error detail of BuildKit starts with. */
export const errorDetailPrefix = "github.com/moby/buildkit/";

/** Type URLs of the error details; the value of each is JSON with the proto's field names. */
export const errorDetailTypes = {
  stack: `${errorDetailPrefix}stack.Stack+json`,
  vertex: `${errorDetailPrefix}errdefs.Vertex+json`,
  source: `${errorDetailPrefix}errdefs.Source+json`,
  frontend: `${errorDetailPrefix}errdefs.Frontend+json`,
  frontendCap: `${errorDetailPrefix}errdefs.FrontendCap+json`,
  subrequest: `${errorDetailPrefix}errdefs.Subrequest+json`,
  compatibilityFeature: `${errorDetailPrefix}errdefs.CompatibilityFeature+json`,
  solve: `${errorDetailPrefix}errdefs.Solve+json`,
  provenanceMaterialsIncomplete: `${errorDetailPrefix}errdefs.ProvenanceMaterialsIncomplete+json`,
  exitMessage: `${errorDetailPrefix}gatewayapi.ExitMessage+json`,
  decisionResponse: `${errorDetailPrefix}policysession.DecisionResponse+json`,
} as const;

/** Largest gRPC message that either side sends or accepts. */
export const maxMessageSizeBytes = 16 << 20;
