// Tries an installed package with its platform's Node, in a project's folder:
//
//   node trial.mjs RECIPE REPORT
//
// Fine-tunes with the options in RECIPE and writes REPORT (both JSON): the error of each action, null if it succeeded, and the losses of the run that was
// stopped. One process does everything, since a Node in an emulator may be unable to start another.
import { readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { finetune, loadModel, safetensors, saveModel, scope } from "lowrank";

const [recipe, report] = process.argv.slice(2);
const models = join(dirname(createRequire(import.meta.url).resolve("lowrank/package.json")), "models");
const embedded = join(models, "default");

/** The embedded model and text, with the learning rate that `lowrank finetune` uses for them. */
const RECIPE = {
  model: embedded,
  data: join(embedded, "moby-dick.txt"),
  optimizer: { lr: 5e-3 },
  ...JSON.parse(readFileSync(recipe, "utf8")),
};

const losses = [];

function hold(what, ...conditions) {
  if (!conditions.every(Boolean)) throw new Error(`${what}: not so`);
}

/** All values of a weight file, by name. */
async function values(path) {
  const tensors = await safetensors.load(path);
  const entries = [];
  for (const [name, tensor] of Object.entries(tensors)) {
    entries.push([name, Buffer.from((await tensor.data()).buffer).toString("base64")]);
    tensor.dispose();
  }
  return JSON.stringify(entries.sort());
}

const weights = (folder) => values(join(folder, "model.safetensors"));

const TRIALS = {
  async save() {
    const model = await loadModel(embedded);
    await saveModel(model, "saved");
    model.dispose();
    hold(
      "a model that was saved has the weights it had",
      (await weights("saved")) === (await weights(embedded)),
    );
    hold(
      "the configuration and the tokenizer are saved, too",
      ["config.json", "tokenizer.json"].every((name) => readdirSync("saved").includes(name)),
    );
  },

  /** Overwrites the files that are loaded, and therefore mapped into memory. */
  async overwrite() {
    const before = await weights(embedded);
    await saveModel(await loadModel(embedded), "loaded");
    const model = await loadModel("loaded");
    await saveModel(model, "loaded", { overwrite: true });
    hold("a model that was saved over itself has the weights it had", (await weights("loaded")) === before);
    hold("nothing is left beside it", !readdirSync(".").some((name) => name.startsWith("loaded.")));
    model.dispose();

    const file = join("loaded", "model.safetensors");
    const tensors = await safetensors.load(file);
    await safetensors.save(file, tensors);
    hold("a file that was saved over itself has the values it had", (await values(file)) === before);
  },

  async stop() {
    const run = finetune({ ...RECIPE, output: "stopped" });
    for await (const event of run) {
      if (event.type !== "step") continue;
      losses.push([event.step, event.loss]);
      if (event.step === 1) await run.stop();
    }
    const { stopped, steps: done } = await run.result;
    hold("a run that was stopped says so", stopped, done >= 1, done < RECIPE.steps);
  },
};

for (const folder of ["saved", "loaded", "stopped"]) rmSync(folder, { recursive: true, force: true });
const wrong = {};
for (const [name, trial] of Object.entries(TRIALS)) {
  wrong[name] = null;
  try {
    await scope(trial);
  } catch (error) {
    wrong[name] = error instanceof Error ? `${error.code ?? error.name}: ${error.message}` : String(error);
  }
  // Written after each action, so that a crash does not lose earlier results.
  writeFileSync(report, JSON.stringify({ node: process.version, wrong, losses }));
}
