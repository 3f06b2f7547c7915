/** Runs that pack several rows into a sequence. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import {
  finetune,
  type FinetuneOptions,
  loadModel,
  type StartEvent,
  type TrainEvent,
} from "../../src/index.js";
import { BatchPlan } from "../../src/data/batches.js";
import type { CausalLM } from "../../src/models/causal-lm.js";
import { injectWith } from "../../src/train/inject-with.js";
import { goldenModel, temporary, tinyModel } from "../hashed.js";
import { goldens } from "../parity/goldens.js";
import { adapterBytes, collect, quick } from "./quick.js";

const model = tinyModel();

/** Returns rows of prompts and completions of many lengths. */
function rows(): string {
  const file = join(temporary(), "rows.jsonl");
  const lines = Array.from({ length: 60 }, (_, i) =>
    JSON.stringify({ prompt: `${"ask ".repeat(i % 4)}?`, completion: "abc".repeat(1 + ((i * 7) % 16)) }),
  );
  writeFileSync(file, `${lines.join("\n")}\n`);
  return file;
}

const data = rows();
const options = (more: Partial<FinetuneOptions> = {}): FinetuneOptions =>
  quick({ model, data }, "cpu", { packing: true, maxLength: 96, lora: { r: 2 }, ...more });

const startOf = (events: TrainEvent[]): StartEvent =>
  events.find((event) => event.type === "start") as StartEvent;
const evalsOf = (events: TrainEvent[]): number[] =>
  events.flatMap((event) => (event.type === "eval" ? [event.loss] : []));

test.serial(
  "training runs over packed sequences, trains every row, and evaluates rows separately",
  async (t) => {
    const given = { evalSplit: 0.2, epochs: 2, steps: undefined, evalEvery: 100 };
    const packed = await collect(finetune(options(given)));
    const apart = await collect(finetune(options({ ...given, packing: false })));
    const [start, other] = [startOf(packed), startOf(apart)];
    t.is(start.examples, other.examples);
    t.is(start.tokens, other.tokens);
    t.is(other.sequences, undefined);
    t.true((start.sequences as number) < 0.75 * start.examples, String(start.sequences));
    t.is(start.stepsPerEpoch, Math.ceil((start.sequences as number) / 4));
    const tokens = packed.flatMap((event) => (event.type === "step" ? [event.tokens] : []));
    t.is(tokens.at(-1), 2 * start.tokens);
    // Before training both runs evaluate the same model on the same rows.
    t.is(evalsOf(packed)[0], evalsOf(apart)[0]);
    t.true((evalsOf(packed).at(-1) as number) < (evalsOf(packed)[0] as number));
  },
);

test.serial("one packed step over all rows equals the step over separate rows", async (t) => {
  const whole = { steps: 1, batchSize: 4, gradientAccumulation: 100, optimizer: { lr: 1e-3 } };
  const stepOf = async (packing: boolean) => {
    const events = await collect(finetune(options({ ...whole, packing })));
    return events.find((event) => event.type === "step");
  };
  const [packed, apart] = [await stepOf(true), await stepOf(false)];
  t.is(packed?.tokens, apart?.tokens);
  t.true(Math.abs((packed?.loss as number) / (apart?.loss as number) - 1) < 1e-6);
  t.true(Math.abs((packed?.gradNorm as number) / (apart?.gradNorm as number) - 1) < 1e-5);
});

test.serial("a stopped run resumes to the same bits, and packing cannot change on resume", async (t) => {
  const whole = options({ seed: 4, steps: 10 });
  await finetune(whole).result;
  const cut = { ...whole, output: join(temporary(), "out") };
  const run = finetune(cut);
  for await (const event of run) if (event.type === "step" && event.step === 4) void run.stop();
  await run.result;
  await t.throwsAsync(finetune({ resume: cut.output as string, packing: false }).result, {
    code: "ERR_OPTION",
    message: /packing was true, and is false now/,
  });
  await finetune({ resume: cut.output as string }).result;
  t.true(adapterBytes(whole.output as string).equals(adapterBytes(cut.output as string)));
  const { options: recorded } = JSON.parse(readFileSync(join(cut.output as string, "run.json"), "utf8")) as {
    options: { packing: boolean };
  };
  t.true(recorded.packing);
});

/** A batch plan that fails when asked for packed sequences. */
class Apart extends BatchPlan {
  override listBatchesAt(): never {
    throw new Error("sequences of several rows");
  }
}

test.serial("a data-driven initialisation reads rows separately", async (t) => {
  const eva = { r: 2, initLoraWeights: "eva" as const };
  const events = await collect(finetune(options({ lora: eva, steps: 3 })));
  t.is(events.at(-1)?.type, "end");
  const examples = Array.from({ length: 12 }, (_, i) => {
    const ids = Int32Array.from({ length: 5 + (i % 4) }, (_, j) => 3 + ((7 * i + 3 * j) % 90));
    return { ids, labels: ids.slice(), trained: ids.length - 1 };
  });
  const sizes = { batchSize: 2, gradientAccumulation: 3, seed: 0, padTokenId: 0, packing: { maxLength: 24 } };
  const base = await loadModel(model);
  const { adapted } = await injectWith(
    base,
    { ...eva, targetModules: ["q_proj"] },
    new Apart(examples, sizes),
  );
  t.true(adapted.length > 0);
  base.dispose();
});

test("rows with labels cannot be packed", async (t) => {
  const file = join(temporary(), "labels.jsonl");
  writeFileSync(file, '{"text":"a","label":"x"}\n{"text":"b","label":"y"}\n');
  await t.throwsAsync(finetune(options({ data: file })).result, {
    code: "ERR_OPTION",
    message: /labels\.jsonl: packing of rows .* such as labelled rows: a label applies/,
  });
});

test("packing must be true or false", async (t) => {
  const wrong = { ...options(), packing: 1 as unknown as boolean };
  await t.throwsAsync(finetune(wrong).result, {
    code: "ERR_OPTION",
    message: /packing must be true or false, got 1/,
  });
});

test("with LongRoPE, texts above the turning point are not packed with shorter ones", async (t) => {
  const long = (await loadModel(goldenModel(join(goldens, "llama-phi3-long")))) as CausalLM;
  const llama = (await loadModel(goldenModel(join(goldens, "llama-tied")))) as CausalLM;
  t.is(long.turningPoint, 16);
  t.is(llama.turningPoint, Infinity);
  long.dispose();
  llama.dispose();
});
