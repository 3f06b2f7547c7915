/**
 * Weights mapped from a file may be overwritten: the model changes but not the file. The file may be overwritten,
 * too.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

import test from "ava";

import { full, loadModel, noGrad, safetensors, saveModel, scope, type Tensor } from "../../src/index.js";
import { testDevices } from "../devices.js";
import { temporary, tinyModel } from "../hashed.js";

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

  test(`${device}: a model can replace the files that it was loaded from`, async (t) => {
    const folder = tinyModel();
    const model = await loadModel(folder, { device });
    const before = await valuesOf(model.stateDict());
    for (let n = 0; n < 2; n++) await saveModel(model, folder, { overwrite: true });
    t.deepEqual(await valuesOf(model.stateDict()), before);
    const again = await loadModel(folder, { device });
    t.deepEqual(await valuesOf(again.stateDict()), before);
    const beside = readdirSync(dirname(folder)).filter((name) =>
      join(dirname(folder), name).startsWith(`${folder}.`),
    );
    t.deepEqual(beside, []);
    for (const held of [model, again]) held.dispose();
  });

  test(`${device}: a file is overwritten while its tensors are in use`, async (t) => {
    const file = join(tinyModel(), "model.safetensors");
    const old = await safetensors.load(file, { device });
    const before = await valuesOf(old);
    const doubled = scope(() =>
      Object.fromEntries(Object.entries(old).map(([name, tensor]) => [name, tensor.to("f32").mul(2)])),
    );
    await safetensors.save(file, doubled);
    t.deepEqual(await valuesOf(old), before);
    const now = await safetensors.load(file, { device });
    t.deepEqual(await valuesOf(now), await valuesOf(doubled));
    for (const tensor of [old, doubled, now].flatMap((all) => Object.values(all))) tensor.dispose();
  });
}

async function valuesOf(tensors: Readonly<Record<string, Tensor>>): Promise<Record<string, unknown>> {
  const read = Object.entries(tensors).map(async ([name, tensor]) => [name, await tensor.data()] as const);
  return Object.fromEntries(await Promise.all(read));
}

test("any tensor name in a file becomes an own property", async (t) => {
  const file = join(temporary(), "x.safetensors");
  const names = ["__proto__", "constructor", "a"];
  const one = full([1], 3, { device: "cpu" });
  await safetensors.save(file, Object.fromEntries(names.map((name) => [name, one])));
  const read = await safetensors.load(file, { device: "cpu" });
  t.deepEqual(Object.keys(read).toSorted(), names.toSorted());
  t.is(Object.getPrototypeOf(read), Object.prototype);
  t.is(await Object.getOwnPropertyDescriptor(read, "__proto__")?.value.item(), 3);
});
