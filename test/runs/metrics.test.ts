/** A run's figures as CSV and as TensorBoard's files. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { finetune, type FinetuneOptions, type StepEvent, type TrainEvent } from "../../src/index.js";
import type { RecordedEvent } from "../../src/runs/events-file.js";
import { TensorboardFormat } from "../../src/runs/tfevents.js";
import { runHere } from "../cli/lowrank.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { collect, quick } from "../train/quick.js";

const given = { model: tinyModel(), data: tinyData() };
const options = (more: Partial<FinetuneOptions> = {}): FinetuneOptions & { output: string } =>
  quick(given, "cpu", { lora: { r: 2 }, ...more }) as FinetuneOptions & { output: string };

const HEAD = "step,time,loss,eval_loss,learning_rate,grad_norm,tokens,tokens_per_second,memory_bytes";

function csvIn(output: string): Record<string, string>[] {
  const [head = "", ...rows] = readFileSync(join(output, "metrics.csv"), "utf8").trimEnd().split("\n");
  if (head !== HEAD) throw new Error(head);
  const names = head.split(",");
  return rows.map((row) => Object.fromEntries(row.split(",").map((cell, i) => [names[i] as string, cell])));
}

/**
 * Returns tags and values by step, from all files of a folder. As in TensorBoard, a session start discards earlier
 * values.
 */
function tensorboardIn(output: string): Map<string, [step: number, value: number][]> {
  const folder = join(output, "tensorboard");
  const found = new Map<string, [number, number][]>();
  for (const name of readdirSync(folder).sort()) {
    const file = readFileSync(join(folder, name));
    for (let at = 0; at < file.length;) {
      const length = Number(file.readBigUInt64LE(at));
      const event = fieldsOf(file.subarray(at + 12, at + 12 + length));
      at += length + 16;
      const step = Number(event.get(2)?.[0] ?? 0);
      if (event.has(7)) found.clear();
      const values = (event.get(5) ?? []).flatMap((summary) => fieldsOf(summary as Buffer).get(1) ?? []);
      for (const value of values) {
        const parts = fieldsOf(value as Buffer);
        const tag = String(parts.get(1)?.[0]);
        const [single] = parts.get(2) ?? [];
        const figure = (single as Buffer).readFloatLE();
        found.set(tag, [...(found.get(tag) ?? []), [step, figure]]);
      }
    }
  }
  return found;
}

/** Returns a protocol buffer's fields by number. */
function fieldsOf(bytes: Buffer): Map<number, (Buffer | number)[]> {
  const found = new Map<number, (Buffer | number)[]>();
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let power = 1; ; power *= 128) {
      const byte = bytes[at++] as number;
      value += (byte & 127) * power;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const [number, wire] = [Math.floor(key / 8), key % 8];
    let content: Buffer | number;
    if (wire === 0) content = varint();
    else {
      const length = wire === 2 ? varint() : wire === 1 ? 8 : 4;
      content = bytes.subarray(at, at + length);
      at += length;
    }
    found.set(number, [...(found.get(number) ?? []), content]);
  }
  return found;
}

const steps = (events: readonly TrainEvent[]): StepEvent[] =>
  events.flatMap((event) => (event.type === "step" ? [event] : []));

test("records are bit-identical to TensorBoard's own writer's", (t) => {
  const format = new TensorboardFormat(1795780800250);
  const step = (n: number): RecordedEvent => {
    const figures = { learningRate: 2e-4, gradNorm: 0.3, tokensPerSecond: 14899.25, memoryBytes: 3e9 };
    return { type: "step", at: 1795780802125, step: n, loss: 1 / n, ...figures, tokens: 5 };
  };
  const classes = { accuracy: 0.875, macroF1: 0.5, labels: [] };
  const written = [
    format.encodeHead(),
    format.add({ type: "eval", at: 1795780801500, step: 0, loss: 4.5, perplexity: 90.0171313005 }),
    format.add({ type: "warning", at: 1, message: "none of it" }),
    format.add({ type: "checkpoint", at: 1, step: 1 }),
    ...[1, 127, 128, 300, 2 ** 40].map((n) => format.add(step(n))),
    format.add({ type: "eval", at: 1795780803000, step: 300, loss: 0.25, perplexity: 1.2840254167, classes }),
  ];
  t.deepEqual(
    Buffer.concat(written),
    readFileSync(new URL("../parity/goldens/tfevents.bin", import.meta.url)),
  );
});

for (const log of ["csv", "tensorboard"] as const) {
  const rounded = (value: number): number => (log === "csv" ? value : Math.fround(value));
  const figures = (output: string): [step: number, loss: number, held: number | undefined][] => {
    if (log === "csv")
      return csvIn(output).map((row) => [
        Number(row["step"]),
        Number(row["loss"] === "" ? Number.NaN : row["loss"]),
        row["eval_loss"] === "" ? undefined : Number(row["eval_loss"]),
      ]);
    const tags = tensorboardIn(output);
    const held = new Map(tags.get("eval/loss"));
    const losses = new Map(tags.get("train/loss"));
    const all = [...new Set([...held.keys(), ...losses.keys()])].sort((a, b) => a - b);
    return all.map((step) => [step, losses.get(step) ?? Number.NaN, held.get(step)]);
  };

  test.serial(
    `${log}: each step and evaluation once, also for a run that was stopped, resumed and replaced`,
    async (t) => {
      const whole = options({ log, evalSplit: 0.2, evalEvery: 4, saveEvery: 2, keep: 9 });
      const events = await collect(finetune(whole));
      const losses = new Map(steps(events).map(({ step, loss }) => [step, rounded(loss)]));
      const held = new Map(
        events.flatMap((event) =>
          event.type === "eval" ? [[event.step, rounded(event.loss)] as const] : [],
        ),
      );
      const expected = Array.from({ length: 13 }, (_, step) => [
        step,
        losses.get(step) ?? Number.NaN,
        held.get(step),
      ]);
      t.deepEqual(figures(whole.output), expected);
      const cut = options({ ...whole, output: join(temporary(), "out") });
      const run = finetune(cut);
      for await (const event of run) if (event.type === "step" && event.step === 7) void run.stop();
      await run.result;
      // From before the stop, so that steps are repeated.
      await finetune({ resume: join(cut.output, "checkpoint-4"), output: cut.output }).result;
      t.deepEqual(figures(cut.output), expected);
      // In another folder the earlier figures are copied.
      const copy = join(temporary(), "copy");
      cpSync(cut.output, copy, { recursive: true });
      await finetune({ resume: join(copy, "checkpoint-6"), output: join(copy, "on") }).result;
      t.deepEqual(figures(join(copy, "on")), expected);
      // Another run in the same folder leaves none of the old figures, for any log option.
      await finetune({ ...whole, output: copy, overwrite: true, log: undefined, steps: 2, saveEvery: 1 })
        .result;
      t.false(existsSync(join(copy, "metrics.csv")));
      t.deepEqual(existsSync(join(copy, "tensorboard")) ? readdirSync(join(copy, "tensorboard")) : [], []);
    },
  );
}

test.serial("a file in the way that no run wrote, and an unknown format", async (t) => {
  const { output } = options();
  mkdirSync(output, { recursive: true });
  writeFileSync(join(output, "metrics.csv"), "a,b\n1,2\n");
  const refused = await t.throwsAsync(finetune(options({ output, log: "csv" })).result, {
    code: "ERR_OUTPUT_EXISTS",
  });
  t.regex(refused?.message ?? "", /metrics\.csv: not written by a run: its columns differ; move it away/);
  await finetune(options({ output, steps: 2 })).result;
  await finetune(options({ output, steps: 2, overwrite: true, log: "tensorboard" })).result;
  t.is(readFileSync(join(output, "metrics.csv"), "utf8"), "a,b\n1,2\n");
  await t.throwsAsync(finetune(options({ log: "json" as "csv" })).result, {
    code: "ERR_OPTION",
    message: /log must be one of tensorboard, csv/,
  });
  const { status, stderr } = await runHere("finetune", "--log", "json");
  t.is(status, 2);
  t.regex(stderr, /--log <format>.*Allowed choices are tensorboard, csv/);
});
