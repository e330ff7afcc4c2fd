import {
  describeSubrequests,
  type ReturnedResult,
  type Subrequest,
  subrequestResult,
  unsupportedRequest,
} from "@kiln/client/frontend";
import type { Recipe } from "./recipe.ts";

const OUTLINE: Subrequest = {
  name: "frontend.outline",
  version: "1.0.0",
  description: "List all parameters of a recipe",
};

/** Answers `--call`; undefined when the recipe is to be built. */
export function answerRequest(id: string | undefined, read: () => Recipe): ReturnedResult | undefined {
  switch (id) {
    case undefined:
      return undefined;
    case "frontend.subrequests.describe":
      return describeSubrequests([OUTLINE]);
    case OUTLINE.name:
      return outline(read());
    default:
      throw unsupportedRequest(id);
  }
}

function outline({ description, args, steps }: Recipe): ReturnedResult {
  const secrets = steps.flatMap((step) => (step.kind === "run" ? step.secrets : []));
  const json = {
    description: description || undefined,
    args: args.map((arg) => ({
      name: arg.name,
      description: arg.description || undefined,
      value: arg.value,
      location: { ranges: [arg.at.range] },
    })),
    secrets: secrets.map(({ value, range }) => ({
      name: value,
      required: true,
      location: { ranges: [range] },
    })),
  };
  const lines = args.map((arg) => `${arg.name}\t${arg.value ?? ""}\t${arg.description}`);
  const text = [description, "BUILD ARG\tVALUE\tDESCRIPTION", ...lines].filter((line) => line !== "");
  return subrequestResult(json, `${text.join("\n")}\n`);
}
