/** The files that a run replaces, when it does, and the files that it leaves alone. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { finetune, type FinetuneOptions } from "../../../src/index.js";
import { type Checkpoint, removeCheckpoint } from "../../../src/train/output/checkpoints.js";
import { temporary, tinyData, tinyModel } from "../../hashed.js";
import { adapterBytes, quick } from "../quick.js";

const given = { model: tinyModel(), data: tinyData() };
const options = (more: Partial<FinetuneOptions> = {}): FinetuneOptions & { output: string } =>
  quick(given, "cpu", { lora: { r: 2 }, steps: 6, ...more }) as FinetuneOptions & { output: string };

/** Runs until a step is reported; `end` stops or aborts. */
async function until(options: FinetuneOptions, step: number, end: "stop" | "abort"): Promise<void> {
  const controller = new AbortController();
  const run = finetune({ ...options, signal: controller.signal });
  const reading = async (): Promise<void> => {
    for await (const event of run) {
      if (event.type !== "step" || event.step !== step) continue;
      if (end === "stop") void run.stop();
      else controller.abort(new Error("gone"));
    }
  };
  await reading().catch(() => {});
  await run.result.catch(() => {});
}

test.serial("a run that replaces another leaves it intact until the new one is complete", async (t) => {
  const first = options({ saveEvery: 2 });
  await finetune(first).result;
  const before = adapterBytes(first.output);
  const second = { ...first, seed: 1, steps: 8, saveEvery: 3, overwrite: true };
  // Nothing changes before the first save.
  await until(second, 1, "abort");
  t.true(adapterBytes(first.output).equals(before));
  t.deepEqual(
    readdirSync(first.output).filter((name) => name.startsWith("checkpoint")),
    ["checkpoint-2", "checkpoint-4", "checkpoint-6"],
  );
  t.is((await finetune({ resume: first.output }).result).steps, 6);
  t.true(adapterBytes(first.output).equals(before));
  // After a save --resume continues the new run, and the adapter is still the old one.
  await until(second, 4, "stop");
  t.true(adapterBytes(first.output).equals(before));
  const { steps } = await finetune({ resume: first.output }).result;
  t.is(steps, 8);
  t.false(adapterBytes(first.output).equals(before));
  const lone = { ...second, overwrite: false, output: join(temporary(), "out") };
  await finetune(lone).result;
  t.true(adapterBytes(first.output).equals(adapterBytes(lone.output)));
  // The checkpoints of the first run are gone.
  for (const step of [2, 4]) t.false(existsSync(join(first.output, `checkpoint-${step}`)));
});

test.serial("an adapter whose weights cannot be replaced keeps its configuration", async (t) => {
  const first = options();
  await finetune(first).result;
  const file = (name: string): string => join(first.output, name);
  const before = readFileSync(file("adapter_config.json"), "utf8");
  const run = finetune({ ...first, lora: { r: 3 }, saveEvery: 3, overwrite: true });
  const reading = async (): Promise<void> => {
    for await (const event of run) {
      if (event.type !== "step" || event.step !== 6) continue;
      // A file cannot replace a folder.
      rmSync(file("adapter_model.safetensors"));
      mkdirSync(join(file("adapter_model.safetensors"), "in-the-way"), { recursive: true });
    }
  };
  await t.throwsAsync(Promise.all([reading(), run.result]));
  t.is(readFileSync(file("adapter_config.json"), "utf8"), before);
  // The staged adapter is still there, and replaces the old one as soon as it can.
  rmSync(file("adapter_model.safetensors"), { recursive: true });
  await finetune({ resume: first.output }).result;
  t.is((JSON.parse(readFileSync(file("adapter_config.json"), "utf8")) as { r: number }).r, 3);
  t.true(adapterBytes(first.output).length > 0);
});

test.serial("files that no run wrote are neither replaced nor removed", async (t) => {
  const first = options({ saveEvery: 2 });
  mkdirSync(join(first.output, "checkpoint-4"), { recursive: true });
  const foreign = ["labels.json", "notes.md", "checkpoint-4/keep.txt"];
  for (const name of foreign) writeFileSync(join(first.output, name), "mine");
  await finetune(first).result;
  t.true(existsSync(join(first.output, "checkpoint-4-2", "run.json")));
  writeFileSync(join(first.output, "checkpoint-2", "mine.txt"), "mine");
  await finetune({ ...first, seed: 1, overwrite: true }).result;
  for (const name of [...foreign, "checkpoint-2/mine.txt"])
    t.is(readFileSync(join(first.output, name), "utf8"), "mine", name);

  // An adapter that a user has edited or added.
  const config = join(first.output, "adapter_config.json");
  writeFileSync(config, `${readFileSync(config, "utf8")} `);
  const changed = {
    code: "ERR_OUTPUT_EXISTS",
    message: /adapter_config\.json: was changed since a run wrote it; move/,
  };
  await t.throwsAsync(finetune({ ...first, overwrite: true }).result, changed);
  await t.throwsAsync(finetune({ resume: first.output }).result, changed);
  rmSync(config);
  await finetune({ ...first, overwrite: true }).result;

  const other = options();
  mkdirSync(other.output);
  writeFileSync(join(other.output, "run.json"), '{"mine": true}');
  await t.throwsAsync(finetune({ ...other, overwrite: true }).result, {
    code: "ERR_OUTPUT_EXISTS",
    message: /run\.json: is not a run's record: .*move it away, or choose another folder/,
  });
  t.is(readFileSync(join(other.output, "run.json"), "utf8"), '{"mine": true}');
  t.deepEqual(readdirSync(other.output), ["run.json"]);
});

test.serial("going back from a replacing run to the replaced one loses nothing of either", async (t) => {
  const first = options({ saveEvery: 2 });
  await finetune(first).result;
  const before = adapterBytes(first.output);
  await until({ ...first, seed: 1, steps: 8, saveEvery: 3, overwrite: true }, 4, "stop");
  // A branch of the first run, stopped and then completed.
  const back = { resume: join(first.output, "checkpoint-2"), optimizer: { lr: 1e-3 } };
  await until(back, 4, "stop");
  t.true(adapterBytes(first.output).equals(before));
  t.is((await finetune({ resume: first.output }).result).steps, 6);
  t.false(adapterBytes(first.output).equals(before));
  const left = readdirSync(first.output).filter((name) => name.startsWith("checkpoint-"));
  t.true(left.includes("checkpoint-2") && left.includes("checkpoint-3"), left.join());
});

test.serial("the second of two simultaneous runs is refused, and the first continues", async (t) => {
  // More steps than can finish before the second run has checked.
  const first = options({ steps: 300 });
  const run = finetune(first);
  let refused: unknown;
  for await (const event of run) {
    if (event.type !== "start") continue;
    refused = await finetune({ ...first, overwrite: true }).result.catch((error: unknown) => error);
  }
  t.like(refused, { code: "ERR_OUTPUT_EXISTS" });
  t.regex((refused as Error).message, new RegExp(`another run, process ${process.pid}, writes here`));
  t.is((await run.result).steps, 300);
  t.deepEqual(readdirSync(first.output).sort(), [
    "adapter_config.json",
    "adapter_model.safetensors",
    "checkpoint-300",
    "events.jsonl",
    "run.json",
  ]);
});

test("a checkpoint is removed with the folders in it, however deep", async (t) => {
  const output = temporary();
  const folder = join(output, "checkpoint-2");
  mkdirSync(join(folder, "ada", "additional_chat_templates"), { recursive: true });
  const names = ["ada/adapter_config.json", "ada/additional_chat_templates/tool_use.jinja"];
  for (const name of [...names, "run.json"]) writeFileSync(join(folder, name), "");
  const files = Object.fromEntries(names.map((name) => [name, { bytes: 0, sha256: "" }]));
  await removeCheckpoint({ folder, progress: { files } } as unknown as Checkpoint);
  t.deepEqual(readdirSync(output), []);
});
