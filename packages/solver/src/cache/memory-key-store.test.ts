import test from "node:test";
import { keyStoreSuite } from "../testing/key-store-suite.ts";
import { MemoryKeyStore } from "./memory-key-store.ts";

keyStoreSuite(test, "memory", { make: () => ({ store: new MemoryKeyStore() }) });
