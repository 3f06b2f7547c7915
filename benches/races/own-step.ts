/** One LoRA training step of ours, timed: the twin of peer_step.py. */
import { parseArgs } from "node:util";

import { inject } from "../../src/lora/index.js";
import { model as made, VOCABULARY } from "./model.js";
import { raceSteps } from "./step.js";

const { values } = parseArgs({
  options: {
    rows: { type: "string", default: "1" },
    length: { type: "string", default: "512" },
    checkpointing: { type: "boolean", default: false },
  },
});
const model = made();
await inject(model, { r: 16, loraAlpha: 32, targetModules: "all-linear" });
model.gradientCheckpointing = values.checkpointing;
await raceSteps(model, { rows: Number(values.rows), length: Number(values.length), vocabulary: VOCABULARY });
