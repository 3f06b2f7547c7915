/** Training with LoRA+ and LoRA-FA, compared with PEFT's losses. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { loadModel, lora, noGrad, optim, scope, tensor, type CausalLM } from "../../src/index.js";
import { collectAdapterState } from "../../src/lora/formats/state.js";
import { testDevices } from "../devices.js";
import { goldenModel, hashed } from "../hashed.js";
import { goldens, onHost, type Golden } from "./goldens.js";

interface Run {
  losses: number[];
}

const { loraPlus, loraFA } = JSON.parse(readFileSync(join(goldens, "peft_optim.json"), "utf8")) as {
  loraPlus: Run;
  loraFA: Run;
};
const folder = join(goldens, "llama-untied-llama3");
const untied = goldenModel(folder);
const { ids, labels } = (await onHost(join(folder, "golden.safetensors"))) as Record<
  "ids" | "labels",
  Golden
>;

/** Returns the model with an adapter whose values are derived from the names of its tensors. */
async function adapted(device: "cpu" | "gpu", options: lora.InjectOptions): Promise<CausalLM> {
  const model = await loadModel<"causal-lm">(untied, { device });
  await lora.inject(model, options);
  noGrad(() =>
    scope(() => {
      for (const [key, one] of collectAdapterState(model, "default"))
        if (!key.endsWith(".base_layer.weight"))
          one.copy(tensor(hashed(key, one.shape), { shape: one.shape, device }));
    }),
  );
  return model;
}

async function losses(model: CausalLM, optimizer: optim.AdamW, steps: number): Promise<number[]> {
  const seen: number[] = [];
  for (let step = 0; step < steps; step++) {
    const loss = scope(() => {
      const of = ({ data, shape }: Golden): ReturnType<typeof tensor> =>
        tensor(data, { shape, dtype: "i32", device: model.device });
      const one = model.forward(of(ids), { labels: of(labels) }).loss as ReturnType<typeof tensor>;
      one.backward();
      return one;
    });
    seen.push(await loss.item());
    loss.dispose();
    optimizer.step();
    optimizer.zeroGrad();
  }
  return seen;
}

const far = (ours: number[], theirs: number[]): number =>
  Math.max(...ours.map((loss, i) => Math.abs(loss / (theirs[i] as number) - 1)));

for (const device of testDevices()) {
  test(`LoRA+ on ${device}: the losses are PEFT's`, async (t) => {
    const model = await adapted(device, {
      r: 3,
      loraAlpha: 6,
      targetModules: ["embed_tokens", "q_proj", "v_proj"],
      bias: "lora_only",
    });
    const groups = optim.loraPlusGroups(model, { lr: 2e-3, ratio: 8, lrEmbedding: 1e-3 });
    const optimizer = new optim.AdamW(groups, { weightDecay: 0 });
    const off = far(await losses(model, optimizer, loraPlus.losses.length), loraPlus.losses);
    t.true(off < 1e-5, String(off));
    optimizer.dispose();
    model.dispose();
  });

  test(`LoRA-FA on ${device}: the losses are PEFT's, and A does not change`, async (t) => {
    const model = await adapted(device, {
      r: 3,
      loraAlpha: 6,
      targetModules: ["q_proj", "v_proj", "down_proj"],
      rankPattern: { v_proj: 2 },
    });
    const optimizer = await optim.LoraFA.of(model, { lr: 2e-3, weightDecay: 0 });
    const frozen = [...model.namedParameters()].filter(([name]) => name.includes("lora_A"));
    const values = (): Promise<unknown[]> => Promise.all(frozen.map(([, one]) => one.data()));
    const before = await values();
    const off = far(await losses(model, optimizer, loraFA.losses.length), loraFA.losses);
    t.true(off < 1e-5, String(off));
    t.is(frozen.length, 6);
    t.true(frozen.every(([, one]) => !one.requiresGrad));
    t.deepEqual(await values(), before);
    optimizer.dispose();
    model.dispose();
  });
}
