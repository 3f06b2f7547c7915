// The worker that trains: it runs what the queue asks for, so that the thread that answers never waits for a step.
import { parentPort } from "node:worker_threads";

import { serve } from "lowrank/electron";

serve(parentPort);
