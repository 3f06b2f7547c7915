/** One LoRA training step of ours, timed: the twin of peer_step.py. */
import { parseArgs } from "node:util";

import { inject } from "../../src/lora/index.js";
import { setProductPrecision } from "../../src/scope.js";
import { model as made, VOCABULARY } from "./model.js";
import { raceSteps } from "./step.js";

const { values } = parseArgs({
  options: {
    rows: { type: "string", default: "1" },
    length: { type: "string", default: "512" },
    checkpointing: { type: "boolean", default: false },
    /** bf16: storage of the frozen weights, and products by them. */
    dtype: { type: "string", default: "f32" },
  },
});
const dtype = values.dtype === "bf16" ? "bf16" : "f32";
if (dtype === "bf16") setProductPrecision("bf16");
const model = made(dtype);
await inject(model, { r: 16, loraAlpha: 32, targetModules: "all-linear" });
model.gradientCheckpointing = values.checkpointing;
await raceSteps(model, { rows: Number(values.rows), length: Number(values.length), vocabulary: VOCABULARY });
