import { serveJobs } from "@kiln/archive";
import { runTreeJob } from "./tree-job.ts";

serveJobs(runTreeJob);
