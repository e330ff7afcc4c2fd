export {
  type Cap,
  type CapStatus,
  gatewayCaps,
  legacyGatewayCaps,
  legacyLlbCaps,
  llbCaps,
  unadvertisedLlbCaps,
} from "./caps.ts";
export {
  errorDetailPrefix,
  errorDetailTypes,
  maxMessageSizeBytes,
} from "./contract.ts";
