/** The Dockerfile frontend as an image: `# syntax=` on kilnd and on any BuildKit. */
import { buildDockerfile } from "@kiln/dockerfile";
import { runFrontend } from "./run-frontend.ts";

await runFrontend((client) => buildDockerfile(client));
