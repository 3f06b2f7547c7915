/**
 * Adapters of every kind of layer, saved by lowrank and loaded by PEFT (README.md): `tsx modules-to-peft.ts PYTHON
 * [MODEL]`. Prints the relative difference of the outputs, and fails if it is above 1e-5 or if a key differs from
 * PEFT's.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { lora, noGrad, scope, tensor } from "../../src/index.js";
import { collectAdapterState } from "../../src/lora/formats/state.js";
import { hashed, temporary } from "../hashed.js";
import { error } from "./goldens.js";
import { toy } from "./modules.js";

const [python, only] = process.argv.slice(2);
if (python === undefined) throw new Error("usage: tsx modules-to-peft.ts PYTHON [text | image]");

const linear = { r: 2, loraAlpha: 6, targetModules: ["proj", "lin"] };
const convolutions = { r: 2, loraAlpha: 6, targetModules: ["conv1", "conv2", "conv3", "point"] };
const cases: Record<string, Record<string, lora.InjectOptions>> = {
  text: {
    Linear: { ...linear, targetModules: ["lin", "classifier"] },
    Conv1D: { ...linear, targetModules: ["proj"] },
    "Linear, Conv1D, Embedding, useRslora": {
      ...linear,
      targetModules: ["proj", "lin", "emb"],
      useRslora: true,
    },
    modulesToSave: { ...linear, modulesToSave: ["classifier"] },
    "bias all": { ...linear, bias: "all" },
    "bias lora_only": { ...linear, bias: "lora_only" },
    useDora: { ...linear, targetModules: ["emb", "proj", "lin"], useDora: true },
    loraBias: { ...linear, loraBias: true },
    trainableTokenIndices: { ...linear, trainableTokenIndices: { emb: [1, 4, 10] } },
    pissa: { ...linear, initLoraWeights: "pissa" },
    olora: { ...linear, initLoraWeights: "olora" },
    patterns: { ...linear, rankPattern: { lin: 3 }, alphaPattern: { "proj|lin": 1 } },
  },
  image: {
    "Conv1d, Conv2d, Conv3d": convolutions,
    "Conv1d, Conv2d, Conv3d, useDora": { ...convolutions, useDora: true },
    "Conv1d, Conv2d, Conv3d, loraBias": { ...convolutions, loraBias: true },
    "Conv2d, bias all, modulesToSave": {
      ...convolutions,
      targetModules: ["conv2", "point"],
      bias: "all",
      modulesToSave: ["classifier"],
    },
  },
};

let worst = 0;
for (const [kind, options] of Object.entries(cases)) {
  if (only !== undefined && kind !== only) continue;
  for (const [name, one] of Object.entries(options)) {
    const { model, input } = toy(kind, "cpu");
    await lora.inject(model, one);
    noGrad(() =>
      scope(() => {
        for (const [key, own] of collectAdapterState(model, "default")) {
          const values = tensor(hashed(key, own.shape), { shape: own.shape, device: "cpu" });
          // Magnitudes stay near their initial values.
          own.copy(key.endsWith("magnitude_vector") ? values.mul(0.3).add(1).mul(own) : values);
        }
      }),
    );
    const ours = (await model.forward(input).data()) as Float32Array;
    const [folder, out] = [temporary(), join(temporary(), "out.json")];
    await lora.saveAdapter(model, folder);
    const script = fileURLToPath(new URL("peft_modules.py", import.meta.url));
    const ran = spawnSync(python, [script, kind, folder, out], { encoding: "utf8" });
    if (ran.status !== 0) throw new Error(`${name}: ${ran.stderr}`);
    const { output } = JSON.parse(readFileSync(out, "utf8")) as { output: number[] };
    const off = error(ours, output);
    worst = Math.max(worst, off);
    process.stdout.write(`${off.toExponential(1)}  ${kind}: ${name}\n`);
    model.dispose();
  }
}
if (!(worst < 1e-5)) throw new Error(`the furthest is off by ${worst}`);
