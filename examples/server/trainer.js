// The worker that trains the queued runs, so that the answering thread never waits for a step.
import { parentPort } from "node:worker_threads";

import { serve } from "lowrank/electron";

serve(parentPort);
