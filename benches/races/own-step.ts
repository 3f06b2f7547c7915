/** One LoRA training step of ours, timed: the twin of peer_step.py. */
import { inject } from "../../src/lora/index.js";
import { model as made, VOCABULARY } from "./model.js";
import { raceSteps } from "./step.js";

const model = made();
await inject(model, { r: 16, loraAlpha: 32, targetModules: "all-linear" });
await raceSteps(model, { rows: 1, length: Number(process.argv[2] ?? 512), vocabulary: VOCABULARY });
