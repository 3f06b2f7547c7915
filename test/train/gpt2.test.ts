/** GPT-2 with its tokenizer, from text to an adapter to text. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { finetune, GPT2LMHeadModel, loadModel, lora, manualSeed, saveModel } from "../../src/index.js";
import { native } from "../../src/native/binding.js";
import { testDevices } from "../devices.js";
import { temporary, tinyData } from "../hashed.js";
import { collect, quick } from "./quick.js";

const TEXT = "the whale swam on and on, and the sea was wide — naïve, 鯨. ";
const END = "<|endoftext|>";

/** Returns the folder of a small GPT-2 with random weights, whose end token is its tokenizer's first. */
async function smallGPT2(): Promise<string> {
  const folder = join(temporary(), "gpt2");
  const config = {
    vocab_size: 320,
    n_embd: 32,
    n_head: 2,
    n_layer: 2,
    n_positions: 64,
    bos_token_id: 0,
    eos_token_id: 0,
  };
  manualSeed(11);
  const model = GPT2LMHeadModel.fromConfig(config, { device: "cpu" });
  await saveModel(model, folder);
  model.dispose();
  const failure = await native().trainBpe([TEXT.repeat(8)], 320, [END], join(folder, "tokenizer.json"));
  if (failure !== null) throw new Error(failure.message);
  return folder;
}

for (const device of testDevices()) {
  test.serial(`on ${device} every layer is adapted, and the model generates with its adapter`, async (t) => {
    const model = await smallGPT2();
    const run = finetune(quick({ model, data: tinyData() }, device, { lora: { r: 4 } }));
    const steps = (await collect(run)).filter((event) => event.type === "step");
    const adapter = (await run.result).adapter as string;
    const loss = (step: number): number => steps.at(step)?.loss ?? NaN;
    t.true(loss(-1) < loss(0), `${loss(0)} … ${loss(-1)}`);

    const config = readFileSync(join(adapter, "adapter_config.json"), "utf8");
    const { fan_in_fan_out, target_modules, task_type } = JSON.parse(config) as Record<string, unknown>;
    t.deepEqual({ fan_in_fan_out, task_type }, { fan_in_fan_out: true, task_type: "CAUSAL_LM" });
    t.is((target_modules as string[]).length, 8);

    const tuned = await loadModel<"causal-lm">(model, { device });
    await lora.loadAdapter(tuned, adapter);
    const ids = tuned.tokenizer?.encode(TEXT) as Int32Array;
    t.is(tuned.tokenizer?.decode(ids) ?? "", TEXT);
    let written = "";
    const tokens: number[] = [];
    for await (const { text, token } of tuned.generate("the whale ", { maxNewTokens: 12 })) {
      written += text;
      tokens.push(token);
    }
    t.is(written, tuned.tokenizer?.decode(tokens) ?? "");
    tuned.dispose();
  });
}
