/** Bounds on what an evaluation may cost: a few lines can ask for more than any machine has. */

/** Iterations, calls and the like of one evaluation. */
const MAX_STEPS = 5_000_000;
/** Elements within one value, those of its elements included. */
const MAX_WEIGHT = 4_000_000;
/** UTF-16 units of one text. */
const MAX_TEXT_LENGTH = 64 * 1024 * 1024;

/** An evaluation that costs too much. */
export class WorkLimitError extends Error {}

/** Steps that the evaluation in progress may still take. Evaluation is synchronous, so one counter will do. */
let stepsLeft = Number.POSITIVE_INFINITY;

/** Runs an evaluation with a bounded number of steps. @throws WorkLimitError when they don't suffice. */
export function withWorkLimit<T>(work: () => T, steps = MAX_STEPS): T {
  const before = stepsLeft;
  stepsLeft = steps;
  try {
    return work();
  } finally {
    stepsLeft = before;
  }
}

/** Counts steps of the evaluation in progress; fractions for what is cheap. @throws WorkLimitError */
export function spend(steps: number): void {
  stepsLeft -= steps;
  if (stepsLeft < 0) throw new WorkLimitError("the definition takes too long to evaluate");
}

/** @throws WorkLimitError for a value that is too large. */
export function checkWeight(weight: number): void {
  if (weight > MAX_WEIGHT) throw new WorkLimitError(`a value has more than ${MAX_WEIGHT} elements`);
}

/** @throws WorkLimitError for a text that is too long. */
export function checkTextLength(length: number): void {
  if (length > MAX_TEXT_LENGTH)
    throw new WorkLimitError(`a text is longer than ${MAX_TEXT_LENGTH} characters`);
}
