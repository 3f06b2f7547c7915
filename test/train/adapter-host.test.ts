/** How a run leaves the adapters of its model if it fails. */
import test from "ava";
import { loadModel, lora } from "../../src/index.js";
import { OwnModel } from "../../src/train/finetune/adapter-host.js";
import { parseSettings } from "../../src/train/settings.js";
import { tinyData, tinyModel } from "../hashed.js";

test("a run that could not add its adapter leaves an adapter of the same name", async (t) => {
  const model = await loadModel(tinyModel(), { device: "cpu" });
  await lora.inject(model, { r: 2 });
  const host = new OwnModel(model, parseSettings({ model, data: tinyData(), device: "cpu" }));
  await t.throwsAsync(
    host.adapt(() => lora.inject(model, { r: 4 })),
    { code: "ERR_ADAPTER_EXISTS" },
  );
  host.abandon();
  t.deepEqual(lora.adapters(model), ["default"]);
  model.dispose();
});

test("a run that fails later removes its adapter", async (t) => {
  const model = await loadModel(tinyModel(), { device: "cpu" });
  await lora.inject(model, { r: 2, name: "other" });
  const host = new OwnModel(model, parseSettings({ model, data: tinyData(), device: "cpu" }));
  await host.adapt(() => lora.inject(model, { r: 4 }));
  host.abandon();
  t.deepEqual(lora.adapters(model), ["other"]);
  model.dispose();
});
