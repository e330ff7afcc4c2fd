import assert from "node:assert/strict";
import { test } from "node:test";
import type { LeaseStore } from "@kiln/store";
import { FakeRefs, fakeContent } from "../testing/fake-engine.ts";
import { DocumentLeases } from "./document-leases.ts";

test("leases of records that went while no daemon ran are dropped at the start", () => {
  using refs = new FakeRefs();
  const ids = new Set(["image-documents-gone", "history/kept", "pull-recent"]);
  const leases = {
    ...fakeContent().leases,
    list: () => [...ids].map((id) => ({ id })),
    delete: (id: string) => void ids.delete(id),
  } as unknown as LeaseStore;
  new DocumentLeases(leases, refs.manager);
  assert.deepEqual([...ids], ["history/kept", "pull-recent"]);
});
