/** What `--call` asked targets for, on standard output. */
import type { BakePlan, BuildRequest, CallOption } from "@kiln/bake";
import { goJson } from "@kiln/formats";
import { type CallOutput, callOutput } from "../build/call-result.ts";
import { callText, parseCall } from "../build/parse-options.ts";
import type { BuildOutcome } from "../build/run-build.ts";
import type { CommandContext } from "../command/command.ts";
import type { TargetResults } from "./run-targets.ts";

/** Prints what `--call` asked each target for; the exit code is the first that isn't 0. */
export function printCalls(ctx: CommandContext, plan: BakePlan, results: TargetResults): number {
  const { stdout } = ctx.terminal;
  const asked = parseCall(callText(ctx.flags));
  if (asked?.format === "json") return printCallsJson(ctx, plan, results);
  let exitCode = 0;
  let isFirst = true;
  for (const request of plan.targets) {
    const outcome = results.outcomes.get(request.name);
    if (request.call === undefined || outcome === undefined) continue;
    if (!isFirst) stdout.write("\n");
    isFirst = false;
    stdout.write(`${request.name}\n${request.description === "" ? "" : `${request.description}\n`}\n`);
    const output = outputOf(request.call, outcome, asked);
    stdout.write(output.text);
    if (output.failure) stdout.write(`error: ${output.failure.message}\n`);
    exitCode ||= output.exitCode;
  }
  for (const [name, { response }] of results.outcomes) {
    const message = response.get("frontend.result.inlinemessage");
    if (message !== undefined) stdout.write(`\n# ${name}\n${message}\n`);
  }
  return exitCode;
}

function outputOf(own: CallOption, outcome: BuildOutcome, asked: CallOption | undefined): CallOutput {
  return callOutput({ ...own, ...asked, name: own.name }, outcome.response, outcome.dockerfileLabel);
}

/** One document with the definition and the answers, as tools read it. */
function printCallsJson(ctx: CommandContext, plan: BakePlan, results: TargetResults): number {
  const definition = JSON.parse(plan.print()) as { group?: unknown; target: Record<string, unknown> };
  const asked = parseCall(callText(ctx.flags));
  const target = new Map<string, unknown>();
  let exitCode = 0;
  for (const request of plan.targets) {
    const outcome = results.outcomes.get(request.name);
    const entry = new Map<string, unknown>([["build", definition.target[request.name]]]);
    if (request.call && outcome) {
      const output = outputOf(request.call, outcome, asked);
      entry.set(request.call.name === "lint" ? "check" : request.call.name, answerOf(request, output));
      exitCode = output.failure ? 1 : exitCode || output.exitCode;
    }
    target.set(request.name, entry);
  }
  ctx.terminal.stdout.write(`${goJson({ group: definition.group, target }, { indent: "  " })}\n`);
  return exitCode;
}

/** A frontend's answer with what went wrong; one that isn't an object stands under the call's name. */
function answerOf(request: BuildRequest, { text, failure }: CallOutput): Map<string, unknown> {
  const answer: unknown = text.trim() === "" ? {} : JSON.parse(text);
  const isObject = typeof answer === "object" && answer !== null && !Array.isArray(answer);
  const parts = new Map<string, unknown>(
    isObject ? Object.entries(answer) : [[request.call?.name ?? "", answer]],
  );
  if (failure) parts.set("error", failure.message);
  return parts;
}
