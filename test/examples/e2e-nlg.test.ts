import { readFileSync } from "node:fs";
import test from "ava";
import { exampleOf, prompt, readPairs, type Example } from "../../examples/e2e-nlg/data.js";
import { adapt, drawnGPT2 } from "../../examples/e2e-nlg/model.js";
import { train } from "../../examples/e2e-nlg/train.js";
import { lora, manualSeed, type StepEvent } from "../../src/index.js";
import { testDevices } from "../devices.js";

const sample = readFileSync(new URL("../../examples/e2e-nlg/sample.csv", import.meta.url), "utf8");

test("a csv of the challenge: quotes, commas and line ends within them", (t) => {
  const csv = 'mr,ref\r\n"name[A, B], food[x]","Said ""yes"",\nthen left."\nname[C],plain\n';
  t.deepEqual(readPairs(csv), [
    { mr: "name[A, B], food[x]", ref: 'Said "yes",\nthen left.' },
    { mr: "name[C]", ref: "plain" },
  ]);
  t.deepEqual(readPairs('ref,mr\n"a",""'), [{ mr: "", ref: "a" }]);
  t.throws(() => readPairs("a,b\nc,d"), { message: /names mr and ref/ });
  const pairs = readPairs(sample);
  t.is(pairs.length, 12);
  t.true(pairs.every(({ mr, ref }) => mr.startsWith("name[") && ref.endsWith(".")));
});

test("a prompt lists the attributes of the meaning representation", (t) => {
  t.is(
    prompt("name[The Mill], customer rating[5 out of 5], near[Café A, B]"),
    "name : The Mill | customer rating : 5 out of 5 | near : Café A, B",
  );
});

const TINY = { vocab_size: 300, n_positions: 512, n_embd: 24, n_layer: 2, n_head: 2, eos_token_id: 299 };

for (const device of testDevices()) {
  test.serial(`on ${device} only the sentence is trained on, and only the adapters change`, async (t) => {
    manualSeed(0);
    // Wide enough that queries and values have an effect.
    const model = drawnGPT2(device, TINY, 0.3);
    t.is(adapt(model), 2 * (8 * 24 + 48 * 4));
    const rows = readPairs(sample).map((pair) => exampleOf(model, pair, 400));
    const first = rows[0] as Example;
    const said = Buffer.from(" The Copper Kettle");
    const start = first.labels.findIndex((label) => label >= 0);
    t.deepEqual([...first.labels.subarray(start, start + said.length)], [...said]);
    t.is(first.labels.at(-1), 299);
    t.is(first.trained, first.ids.length - start);
    const frozen = new Map<string, number[]>();
    const adapters = new Set(Object.values(lora.loraStateDict(model)));
    for (const [name, tensor] of Object.entries(model.stateDict()))
      if (!adapters.has(tensor)) frozen.set(name, [...(await tensor.data())]);
    const recipe = { epochs: 4, batchSize: 2, lr: 4e-2, warmup: 1, seed: 0 };
    const steps: StepEvent[] = [];
    for await (const event of train(model, rows.slice(0, 4), recipe))
      if (event.type === "step") steps.push(event);
    t.is(steps.length, 8);
    t.true(
      (steps.at(-1) as StepEvent).loss < 0.9 * (steps[0] as StepEvent).loss,
      JSON.stringify(steps.at(-1)),
    );
    for (const [name, tensor] of Object.entries(model.stateDict()))
      if (!adapters.has(tensor)) t.deepEqual([...(await tensor.data())], frozen.get(name), name);
    model.dispose();
  });
}
