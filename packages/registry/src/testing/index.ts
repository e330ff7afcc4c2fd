export { type AuthMode, type Fault, TestRegistry, type TestRegistryOptions } from "./test-registry.ts";
