/** A model in a GGUF file is trained, resumed, merged and queried like one in a folder. */
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { finetune, loadModel } from "../../src/index.js";
import { runHere } from "../cli/lowrank.js";
import { ggufModelFile } from "../gguf/models.js";
import { tokenizerMetadata } from "../gguf/tokenizers.js";
import { temporary } from "../hashed.js";
import { adapterBytes, quick } from "./quick.js";

/** Returns the folder of a small model that has a tokenizer. */
function model(more: Record<string, string> = {}): string {
  const { vocabulary, metadata } = tokenizerMetadata("smollm");
  return ggufModelFile("llama", "q4_0", { size: 32, vocabulary, metadata: { ...metadata, ...more } });
}

function rows(): string {
  const file = join(temporary(), "rows.jsonl");
  const texts = Array.from({ length: 12 }, (_, i) =>
    JSON.stringify({ text: `Row ${i} says that ${i} is a number.` }),
  );
  writeFileSync(file, texts.join("\n"));
  return file;
}

test.serial(
  "a run that was stopped resumes to the same bits, and identifies its model by content",
  async (t) => {
    const [path, data] = [model(), rows()];
    const options = (more: object): Parameters<typeof finetune>[0] =>
      quick({ model: path, data }, "cpu", { steps: 6, schedule: "constant", ...more });
    const whole = await finetune(options({})).result;
    const half = options({ steps: 3, saveEvery: 3 });
    await finetune(half).result;
    const config = JSON.parse(readFileSync(join(whole.adapter, "adapter_config.json"), "utf8")) as Record<
      string,
      unknown
    >;
    t.is(config["base_model_name_or_path"], path);
    const resumed = await finetune({ resume: half.output as string, steps: 6 }).result;
    t.true(adapterBytes(resumed.adapter).equals(adapterBytes(whole.adapter)));

    const again = options({ steps: 3, saveEvery: 3 });
    await finetune(again).result;
    const goesOn = () => finetune({ resume: again.output as string, steps: 6 }).result;
    const original = readFileSync(path);
    const others: Record<string, string>[] = [
      { "general.name": "another" },
      { "tokenizer.chat_template": "{{ messages }}" },
    ];
    for (const more of others) {
      copyFileSync(model(more), path);
      await t.throwsAsync(goesOn(), {
        message: /the model differs from the interrupted run's/,
        code: "ERR_OPTION",
      });
    }
    writeFileSync(path, original);
    t.is((await goesOn()).steps, 6);
  },
);

test.serial("every command takes a GGUF file", async (t) => {
  const [path, data, output] = [model(), rows(), join(temporary(), "out")];
  const run = async (...argv: string[]): Promise<string> => {
    const ended = await runHere(...argv);
    t.is(ended.status, 0, ended.stderr);
    return ended.stdout;
  };
  const device = ["--device", "cpu"];
  await run(
    "finetune",
    "--model",
    path,
    "--data",
    data,
    "--output",
    output,
    "--steps",
    "2",
    "--rank",
    "2",
    ...device,
  );
  // The adapter records its base model.
  const sampling = ["--max-tokens", "4", "--seed", "1"];
  const adapted = await run("generate", "--adapter", output, "--prompt", "Row 1", ...sampling, ...device);
  t.true(adapted.length > 0);
  const messages = JSON.stringify([{ role: "user", content: "Hi" }]);
  t.true((await run("generate", "--model", path, "--messages", messages, ...sampling, ...device)).length > 0);
  t.regex(await run("evaluate", "--model", path, "--data", data, ...device), /perplexity|loss/);
  t.regex(await run("inspect", "--model", path, data), /tokens/);
  const merged = join(temporary(), "merged");
  await run("merge", "--adapter", output, "--output", merged);
  const folder = await loadModel(merged, { device: "cpu" });
  const file = await loadModel(path, { device: "cpu" });
  t.deepEqual(folder.tokenizer!.encode("Row 12"), file.tokenizer!.encode("Row 12"));
  t.deepEqual(folder.config.eosTokenIds, file.config.eosTokenIds);
  folder.dispose();
  file.dispose();
  const bare = ggufModelFile("llama", "q4_0", { size: 32 });
  const refused = await runHere("generate", "--model", bare, "--prompt", "x", ...device);
  t.is(refused.status, 1);
  t.regex(refused.stderr, /no tokenizer/);
});
