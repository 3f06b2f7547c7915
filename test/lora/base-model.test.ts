/** Locations in which the base model of an adapter is searched. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { findBaseModel, resolveBaseName } from "../../src/lora/formats/base-model.js";
import { locateDefaultModel } from "../../src/models/default.js";
import { temporary } from "../hashed.js";

test("an absolute path is used unchanged, a relative one below the adapter's folder if a model is there", (t) => {
  const folder = temporary();
  const model = join(folder, "models", "base");
  mkdirSync(model, { recursive: true });
  const adapter = join(folder, "adapter");
  t.deepEqual(findBaseModel(adapter, model), { path: model, places: [model] });
  const [beside, here] = [model, join(process.cwd(), "../models/base")];
  // A folder without a model is no base, since a model's name on a hub looks like a relative path.
  t.deepEqual(findBaseModel(adapter, "../models/base"), { path: undefined, places: [beside, here] });
  writeFileSync(join(model, "config.json"), "{}");
  t.is(findBaseModel(adapter, "../models/base").path, model);
  writeFileSync(join(folder, "model.gguf"), "GGUF");
  t.is(findBaseModel(adapter, "../model.gguf").path, join(folder, "model.gguf"));
});

test("the embedded model is found in any installation of the package", (t) => {
  for (const path of [
    "/gone/node_modules/lowrank/models/default",
    "/gone/app.asar.unpacked/lowrank/models/default",
  ])
    t.is(findBaseModel(temporary(), path).path, locateDefaultModel());
  t.is(findBaseModel(temporary(), "/gone/models/default").path, undefined);
});

test("a path is stored as an absolute one, and a name on a hub unchanged", (t) => {
  t.is(resolveBaseName("test", undefined), join(process.cwd(), "test"));
  t.is(resolveBaseName("test", "0123456789abcdef"), "test");
  t.is(resolveBaseName("owner/absent", undefined), "owner/absent");
  t.is(resolveBaseName(undefined, undefined), undefined);
});
