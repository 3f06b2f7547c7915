/** Weights of a file on disk may be written over: the model changes, the file does not. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { full, loadModel, noGrad, scope } from "../../src/index.js";
import { testDevices } from "../devices.js";
import { tinyModel } from "../hashed.js";

for (const device of testDevices()) {
  test(`${device}: values loaded over a model's weights stay in the process`, async (t) => {
    const folder = tinyModel();
    const file = join(folder, "model.safetensors");
    const before = readFileSync(file);
    const model = await loadModel(folder, { device });
    const state = model.stateDict();
    const name = "model.layers.0.self_attn.q_proj.weight";
    const given = full(state[name]!.shape, 0.5, { device });
    model.loadStateDict({ [name]: given }, { strict: false });
    noGrad(() =>
      scope(() => state["model.norm.weight"]!.copy(full(state["model.norm.weight"]!.shape, 2, { device }))),
    );
    t.true(((await state[name]!.to("f32").data()) as Float32Array).every((v) => v === 0.5));
    t.true(((await state["model.norm.weight"]!.to("f32").data()) as Float32Array).every((v) => v === 2));
    t.deepEqual(readFileSync(file), before);
    const again = await loadModel(folder, { device });
    t.false(((await again.stateDict()[name]!.to("f32").data()) as Float32Array).every((v) => v === 0.5));
    for (const held of [model, again, given]) held.dispose();
  });
}
