export {
  FakeEngine,
  type FakeEngineOptions,
  type FakeResult,
  FakeResultStore,
  seededRandom,
  VirtualTimers,
} from "./fake-engine.ts";
export { type GraphChange, type GraphOp, graph, referenceValue } from "./graph.ts";
export { keyStoreSuite } from "./key-store-suite.ts";
