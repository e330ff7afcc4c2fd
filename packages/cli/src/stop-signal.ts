import { BuildError } from "@kiln/base";

/** Signals that are taken as a wish to stop; the third one ends the program at once. */
const MAX_SIGNALS = 3;

/** Aborts on the first SIGINT or SIGTERM. */
export function stopSignal(): AbortSignal {
  const controller = new AbortController();
  let count = 0;
  const onSignal = (): void => {
    count++;
    controller.abort(new BuildError("canceled", "context canceled"));
    if (count >= MAX_SIGNALS) process.exit(1);
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  return controller.signal;
}
