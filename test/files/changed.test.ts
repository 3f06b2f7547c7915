/** Files that another process writes, replaces or removes while they are in use: an error, and never a signal. */
import {
  cpSync,
  existsSync,
  renameSync,
  rmSync,
  readFileSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import test from "ava";

import { type CausalLM, finetune, loadModel, lora, tensor } from "../../src/index.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { serving } from "../serve/serving.js";
import { collect, quick } from "../train/quick.js";

const data = tinyData();

/** Returns a copy of the tiny model, and the path of its weights. */
function copyModel(): { model: string; weights: string } {
  const model = join(temporary(), "model");
  cpSync(tinyModel(), model, { recursive: true });
  return { model, weights: join(model, "model.safetensors") };
}

/** Sets a time of change that no earlier write had. */
function age(path: string): void {
  const later = new Date(Date.now() + 10_000);
  utimesSync(path, later, later);
}

/** Writes into a file, so that its bytes in a map change. */
const IN_PLACE: Readonly<Record<string, (path: string) => void>> = {
  "made shorter": (path) => writeFileSync(path, readFileSync(path).subarray(0, 5000)),
  truncated: (path) => truncateSync(path, 0),
  "made longer": (path) => writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.alloc(9999)])),
  "written with other bytes": (path) => {
    writeFileSync(path, readFileSync(path).fill(7, 20_000));
    age(path);
  },
};

/** Gives a file's name to another file, or to none; a map keeps its bytes. */
const REPLACED: Readonly<Record<string, (path: string) => void>> = {
  "replaced by a shorter file": (path) => {
    writeFileSync(`${path}.new`, "short");
    renameSync(`${path}.new`, path);
  },
  removed: (path) => rmSync(path),
};

const CHANGED = {
  code: "ERR_FILE_NOT_FOUND",
  message:
    /model\.safetensors: the file was changed while it was in use \(.*\); load the model again, and replace files by renaming/,
};

async function generate(model: CausalLM): Promise<string> {
  let text = "";
  for await (const { text: piece } of model.generate("before", { maxNewTokens: 8, temperature: 0 }))
    text += piece;
  return text;
}

/** Returns the loss of a row. */
async function evaluate(model: CausalLM): Promise<number> {
  const ids = tensor(Int32Array.of(3, 1, 4, 1, 5, 9, 2, 6), { shape: [1, 8], device: model.device });
  const loss = model.loss(ids, ids);
  try {
    return await loss.item();
  } finally {
    ids.dispose();
    loss.dispose();
  }
}

// Windows does not let another process write into a mapped file.
const inPlace = process.platform === "win32" ? [] : Object.entries(IN_PLACE);

for (const [how, change] of inPlace) {
  test.serial(`generate: a base that is ${how} is one error that names the file`, async (t) => {
    const { model: folder, weights } = copyModel();
    const model = await loadModel(folder, { device: "cpu", task: "causal-lm" });
    await generate(model);
    change(weights);
    await t.throwsAsync(generate(model), CHANGED);
    await t.throwsAsync(generate(model), CHANGED);
    // Another model is not affected.
    const other = await loadModel(tinyModel(), { device: "cpu", task: "causal-lm" });
    t.true((await generate(other)).length > 0);
    for (const one of [model, other]) one.dispose();
  });

  test.serial(`finetune: a base that is ${how} is one error that names the file`, async (t) => {
    const { model, weights } = copyModel();
    const given = quick({ model, data }, "cpu", { steps: 400, saveEvery: 2, evalSplit: 0.2, evalEvery: 2 });
    const run = finetune(given);
    const reading = async (): Promise<void> => {
      for await (const event of run) if (event.type === "step" && event.step === 3) change(weights);
    };
    await t.throwsAsync(reading(), CHANGED);
    // No adapter of weights that had changed.
    t.false(existsSync(join(given.output as string, "adapter_model.safetensors")));
    t.true(existsSync(join(given.output as string, "checkpoint-2", "adapter_model.safetensors")));
  });

  test.serial(`evaluate: a base that is ${how} is one error that names the file`, async (t) => {
    const { model: folder, weights } = copyModel();
    const model = await loadModel(folder, { device: "cpu", task: "causal-lm" });
    await evaluate(model);
    change(weights);
    await t.throwsAsync(evaluate(model), CHANGED);
    model.dispose();
  });

  test.serial(`serve: a base that is ${how} is status 500, and the server continues`, async (t) => {
    const { model: folder, weights } = copyModel();
    const model = await loadModel(folder, { device: "cpu", task: "causal-lm" });
    const { post } = await serving(t, { model, served: [{ name: "base", adapter: null }] });
    const ask = async (): Promise<number> =>
      (await post("/completions", { model: "base", prompt: "before", max_tokens: 4 })).status;
    t.is(await ask(), 200);
    change(weights);
    for (let i = 0; i < 3; i++) t.is(await ask(), 500);
  });
}

for (const [how, change] of process.platform === "win32" ? [] : Object.entries(REPLACED)) {
  test.serial(`generate, evaluate: a base that is ${how} keeps its weights`, async (t) => {
    const { model: folder, weights } = copyModel();
    const model = await loadModel(folder, { device: "cpu", task: "causal-lm" });
    const [text, loss] = [await generate(model), await evaluate(model)];
    change(weights);
    t.is(await generate(model), text);
    t.is(await evaluate(model), loss);
    model.dispose();
  });
}

for (const [how, change] of Object.entries({ ...IN_PLACE, ...REPLACED }))
  test.serial(`an adapter that is ${how} keeps the weights that were loaded`, async (t) => {
    const given = quick({ model: tinyModel(), data }, "cpu", { steps: 2 });
    const folder = given.output as string;
    await collect(finetune(given));
    const model = await loadModel(tinyModel(), { device: "cpu", task: "causal-lm" });
    await lora.loadAdapter(model, folder);
    const [text, loss] = [await generate(model), await evaluate(model)];
    change(join(folder, "adapter_model.safetensors"));
    t.is(await generate(model), text);
    t.is(await evaluate(model), loss);
    model.dispose();
  });
