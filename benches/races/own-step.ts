/** Times a LoRA training step; the counterpart of peer_step.py. With --profile FILE it runs alone instead. */
import { parseArgs } from "node:util";

import { lora, setMatmulPrecision } from "../../src/index.js";
import { model as made } from "./model.js";
import { SHAPES } from "./shapes.js";
import { profileSteps, raceSteps } from "./step.js";

const { values } = parseArgs({
  options: {
    rows: { type: "string", default: "1" },
    length: { type: "string", default: "512" },
    shape: { type: "string", default: "smollm2-135m" },
    layers: { type: "string" },
    checkpointing: { type: "boolean", default: false },
    /** bf16: storage of the frozen weights, and precision of products by them. */
    dtype: { type: "string", default: "f32" },
    profile: { type: "string" },
  },
});
const dtype = values.dtype === "bf16" ? "bf16" : "f32";
if (dtype === "bf16") setMatmulPrecision("bf16");
if (!Object.hasOwn(SHAPES, values.shape))
  throw new Error(`there is no shape ${values.shape}; there are ${Object.keys(SHAPES).join(", ")}`);
const shape = values.shape as keyof typeof SHAPES;
const model = made({ shape, dtype, layers: values.layers === undefined ? undefined : Number(values.layers) });
await lora.inject(model, { r: 16, loraAlpha: 32, targetModules: "all-linear" });
model.gradientCheckpointing = values.checkpointing;
const { vocabulary } = SHAPES[shape];
const size = { rows: Number(values.rows), length: Number(values.length), vocabulary };
if (values.profile === undefined) await raceSteps(model, size);
else await profileSteps(model, size, values.profile);
