import test from "ava";
import pc from "picocolors";
import { formatSize, formatDuration, shorten, formatSpeed } from "../../src/cli/terminal/format.js";
import { drawBar, formatLiveLine, isLogged } from "../../src/cli/terminal/progress.js";
import { createHumanRenderer, createJsonRenderer } from "../../src/cli/finetune/render.js";
import type { Output } from "../../src/cli/terminal/output.js";
import type { StartEvent, StepEvent, TrainEvent } from "../../src/train/events.js";

const start: StartEvent = {
  type: "start",
  model: "SmolLM2-135M",
  family: "llama",
  parameters: 139_400_064,
  trainable: 4_884_480,
  adapted: 210,
  targets: ["q_proj", "v_proj"],
  rank: 16,
  alpha: 32,
  device: "cpu",
  deviceName: "EPYC",
  deviceReason: "no GPU was found",
  dtype: "f16",
  matmulPrecision: "exact",
  examples: 1200,
  evalExamples: 60,
  tokens: 240_512,
  steps: 150,
  stepsPerEpoch: 150,
  batchSize: 1,
  gradientAccumulation: 8,
  maxLength: 512,
  optimizer: "adamw",
  learningRate: 2e-4,
  schedule: "linear",
  warmup: 5,
  seed: 0,
  output: "./lowrank-out",
  resumedFrom: 0,
};

function step(n: number, steps = 150): StepEvent {
  return {
    type: "step",
    step: n,
    steps,
    loss: 2.31402,
    learningRate: 1.2e-4,
    gradNorm: 0.523,
    tokens: 1000 * n,
    tokensPerSecond: 412.4,
    etaSeconds: 130,
    memoryBytes: 1.2 * 2 ** 30,
    merged: 1,
  };
}

const rest: TrainEvent[] = [
  { type: "eval", step: 0, loss: 2.6, perplexity: 13.46, tokens: 900 },
  step(1),
  step(2),
  step(150),
  { type: "checkpoint", step: 150, path: "lowrank-out/checkpoint-150" },
  { type: "eval", step: 150, loss: 2.21, perplexity: 9.116, tokens: 900 },
  {
    type: "end",
    adapter: "lowrank-out",
    loss: 2.1,
    evalLoss: 2.21,
    steps: 150,
    stopped: false,
    seconds: 192,
  },
];

function output(isTTY: boolean, columns = 100): Output & { text: string } {
  return {
    text: "",
    isTTY,
    columns,
    write(chunk: string | Uint8Array) {
      this.text += String(chunk);
      return true;
    },
  };
}

test("the summary names the optimizer of the run", (t) => {
  const lines = ["adamw", "adam", "sgd", "adafactor", "lion"].map((optimizer) => {
    const out = output(false);
    createHumanRenderer(out)({ ...start, optimizer: optimizer as StartEvent["optimizer"] });
    return /optimizer +(\w+), learning rate/.exec(out.text)?.[1];
  });
  t.deepEqual(lines, ["AdamW", "Adam", "SGD", "Adafactor", "Lion"]);
});

test("plain lines: the summary, some steps, and the end", (t) => {
  const out = output(false);
  const show = createHumanRenderer(out);
  for (const event of [start, ...rest]) show(event);
  t.notRegex(out.text, /\u001b|\r/);
  t.deepEqual(out.text.split("\n"), [
    "  model      SmolLM2-135M (llama), 134.5M weights, f16",
    "  adapter    rank 16, alpha 32, on 210 layers: q_proj, v_proj",
    "  trainable  4,884,480 of 139,400,064 (3.50%)",
    "  device     cpu: EPYC (no GPU was found)",
    "  data       1,200 rows, 240,512 tokens to train on; 60 rows held out",
    "  steps      150 (1.00 epochs) of 1 × 8 rows, up to 512 tokens each",
    "  optimizer  AdamW, learning rate 2.00e-4, linear, warm-up 5; seed 0",
    "  output     ./lowrank-out",
    "before training: held-out loss 2.6000, perplexity 13.46",
    "step 1/150  loss 2.3140  2m 10s left  412 tok/s  lr 1.20e-4  1.2 GiB  norm 0.523",
    "step 2/150  loss 2.3140  2m 10s left  412 tok/s  lr 1.20e-4  1.2 GiB  norm 0.523",
    "step 150/150  loss 2.3140  2m 10s left  412 tok/s  lr 1.20e-4  1.2 GiB  norm 0.523",
    "step 150: saved lowrank-out/checkpoint-150",
    "step 150: held-out loss 2.2100, perplexity 9.116",
    "done at step 150 after 3m 12s: loss 2.1000",
    "held-out loss 2.2100 (2.6000 before, −15.0%)",
    "adapter lowrank-out",
    "",
  ]);
});

test("the summary reports the precision of products, if it has an effect", (t) => {
  const model = (more: Partial<StartEvent>): string | undefined => {
    const out = output(false);
    createHumanRenderer(out)({ ...start, ...more });
    return /weights, (.*)/.exec(out.text)?.[1];
  };
  t.is(model({ dtype: "bf16", matmulPrecision: "bf16" }), "bf16, products in bf16");
  t.is(model({ dtype: "f32", matmulPrecision: "bf16" }), "f32");
  t.is(model({ matmulPrecision: "f16", device: "gpu" }), "f16, products in f16 where the gpu has it");
  t.is(model({ matmulPrecision: "f16" }), "f16");
});

test("one complete JSON event a line", (t) => {
  const out = output(false);
  const show = createJsonRenderer(out);
  for (const event of [start, ...rest]) show(event);
  const lines = out.text.trimEnd().split("\n");
  t.deepEqual(
    lines.map((line) => JSON.parse(line) as TrainEvent),
    [start, ...rest],
  );
});

test("on a terminal the live line is overwritten, at a limited rate, and never left above other lines", (t) => {
  const out = output(true);
  let now = 0;
  const show = createHumanRenderer(out, () => now);
  show(step(1));
  const drawn = out.text;
  show(step(2));
  t.is(out.text, drawn);
  now = 200;
  show(step(3));
  t.true(out.text.length > drawn.length);
  show({ type: "checkpoint", step: 3, path: "c" });
  t.regex(out.text, /\r\u001b\[2K(\u001b\[2m)?step 3: saved c/);
});

test("the live line fits any width", (t) => {
  const plain = pc.createColors(false);
  for (const columns of [10, 20, 40, 60, 80, 120]) {
    const line = formatLiveLine(step(63, 150), columns, plain);
    t.true(line.length < Math.max(columns, 15), `${columns}: ${line}`);
  }
  t.regex(
    formatLiveLine(step(63), 120, plain),
    /42% · 63\/150 · loss 2\.3140 · 2m 10s left · 412 tok\/s · lr 1\.20e-4 · 1\.2 GiB/,
  );
});

test("bars", (t) => {
  t.is(drawBar(0, 4), "░░░░");
  t.is(drawBar(0.5, 4), "██░░");
  t.is(drawBar(0.53, 4), "██▏░");
  t.is(drawBar(1, 4), "████");
  t.is(drawBar(2, 4), "████");
});

test("a long run's log has about a hundred lines, with merged steps or not", (t) => {
  const lines = Array.from({ length: 5000 }, (_, i) => step(i + 1, 5000)).filter(isLogged);
  t.is(lines.length, 101);
  t.true(isLogged({ ...step(57, 5000), merged: 10 }));
  t.false(isLogged({ ...step(57, 5000), merged: 3 }));
});

test("numbers", (t) => {
  t.deepEqual([260_032, 134_515_008, 8.03e9, 12].map(shorten), ["260K", "134.5M", "8.03B", "12"]);
  t.deepEqual([512, 1536, 3.4 * 2 ** 30].map(formatSize), ["512 B", "1.5 KiB", "3.4 GiB"]);
  t.deepEqual([9, 125, 11_040, 59.7, Infinity].map(formatDuration), [
    "9s",
    "2m 05s",
    "3h 04m",
    "1m 00s",
    "?",
  ]);
  t.deepEqual([4.123, 41.23, 1412.3].map(formatSpeed), ["4.12", "41.2", "1,412"]);
});

test("a run that was stopped before its second evaluation reports no change", (t) => {
  const out = output(false);
  const show = createHumanRenderer(out);
  const [before] = rest;
  const end: TrainEvent = {
    type: "end",
    adapter: "a",
    loss: 2,
    evalLoss: 2.6,
    steps: 3,
    stopped: true,
    seconds: 4,
  };
  for (const event of [start, before, step(3), end]) if (event !== undefined) show(event);
  t.true(out.text.endsWith("stopped at step 3 after 4s: loss 2.0000\nadapter a\n"));
});
