import { runLayerJob } from "./layer-job.ts";
import { serveJobs } from "./thread-server.ts";

serveJobs(runLayerJob);
