import { runFrontend } from "@kiln/client/frontend";
import { build } from "./build.ts";

await runFrontend(build);
