/** Fine-tuning on speech: rows of samples, and WAV files that a data file names. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import test from "ava";
import {
  finetune,
  loadModel,
  lora,
  memory,
  type EvalEvent,
  type FinetuneOptions,
  type SpokenText,
  type StepEvent,
} from "../../src/index.js";
import { BatchPlan } from "../../src/data/batches.js";
import { listHashes, readData } from "../../src/data/read.js";
import { readSpokenTexts } from "../../src/data/speech.js";
import { evaluate } from "../../src/train/evaluate.js";
import { createObjective } from "../../src/train/prepare.js";
import { atRest } from "../at-rest.js";
import { testDevices } from "../devices.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { rowsFile, tinyEncoder } from "../tiny-encoder.js";
import { speechFile, tinyWhisper, tones } from "../tiny-whisper.js";
import { planLosses } from "./plan-losses.js";
import { adapterBytes, collect, quick } from "./quick.js";

const model = await tinyWhisper();
const rows = tones(36);
const [data, evalData] = [rows.slice(0, 24), rows.slice(24)];

const options = (device: string, more: Partial<FinetuneOptions> = {}): FinetuneOptions =>
  quick({ model, data }, device, { language: "en", batchSize: 4, steps: 30, ...more });

async function* oneByOne(all: readonly SpokenText[]): AsyncGenerator<SpokenText> {
  for (const one of all) {
    await Promise.resolve();
    yield { audio: one.audio.slice(), text: one.text };
  }
}

for (const device of testDevices()) {
  test.serial(
    `on ${device} the model learns the names of tones, its adapter is saved, and its memory is freed`,
    async (t) => {
      const live = (): number => memory(device as "cpu").live;
      const before = (await atRest(device)).live;
      const run = finetune(
        options(device, { evalData, evalEvery: 60, lora: { r: 8 }, optimizer: { lr: 2e-2 }, steps: 60 }),
      );
      const events = await collect(run);
      const { adapter } = await run.result;
      const evals = events.filter((event): event is EvalEvent => event.type === "eval");
      const [first, last] = [evals[0] as EvalEvent, evals.at(-1) as EvalEvent];
      t.true(last.loss < first.loss / 8, `${first.loss}, and ${last.loss} at the end`);
      // Language, task, no timestamps, letters and the end: 4 rows are "high" and 8 are "low".
      t.is(
        last.tokens,
        evalData.reduce((sum, { text }) => sum + 3 + text.length + 1, 0),
      );
      const config = JSON.parse(readFileSync(join(adapter, "adapter_config.json"), "utf8")) as object;
      t.like(config, { task_type: null, modules_to_save: null });
      t.is(live(), before);

      const again = await loadModel(model, { device: device as "cpu", task: "speech-to-text" });
      const untaught = await again.transcribe((evalData[0] as SpokenText).audio, { maxNewTokens: 8 });
      t.not(untaught.text, evalData[0]?.text);
      await lora.loadAdapter(again, adapter);
      for (const { audio, text } of evalData.slice(0, 4)) {
        t.is((await again.transcribe(audio, { language: "en" })).text, text);
        t.deepEqual(await again.transcribe(audio), await again.transcribe(audio, { language: "english" }));
      }
      const objective = createObjective(again, { language: "English", maxLength: 512 });
      const held = await objective.createExamples(
        await readSpokenTexts("data", evalData, undefined),
        undefined,
      );
      for (const batchSize of [1, 5]) {
        const { loss, tokens } = await evaluate(again, objective, held, { batchSize });
        t.is(tokens, last.tokens);
        t.true(Math.abs(loss - last.loss) < 1e-5, `${loss}, ${last.loss} when it was trained`);
      }
      again.dispose();
      t.is(live(), before);
    },
  );
}

test.serial("an array, rows from an iterator, and WAV files give bit-identical adapters", async (t) => {
  const adapters: Buffer[] = [];
  const losses: number[][] = [];
  for (const given of [data, oneByOne(data), new Set(data), speechFile(data)]) {
    const run = finetune(options("cpu", { data: given, steps: 4 }));
    const steps = (await collect(run)).filter((event): event is StepEvent => event.type === "step");
    losses.push(steps.map(({ loss }) => loss));
    adapters.push(adapterBytes((await run.result).adapter));
  }
  const [first, ...rest] = adapters as [Buffer, ...Buffer[]];
  for (const one of rest) t.true(one.equals(first));
  for (const one of losses) t.deepEqual(one, losses[0]);
});

test.serial("a run that is stopped and resumed ends with the same bits, given the same rows", async (t) => {
  const common = { steps: 6, lora: { r: 4, loraDropout: 0.1 } };
  const whole = options("cpu", common);
  await finetune(whole).result;
  const cut = options("cpu", { ...common, saveEvery: 3 });
  const run = finetune(cut);
  for await (const event of run) if (event.type === "checkpoint") void run.stop();
  t.true((await run.result).stopped);
  const { output } = cut as { output: string };
  await t.throwsAsync(finetune({ output, resume: true, model }).result, {
    code: "ERR_OPTION",
    message: /the run was given rows in memory by data; give the same rows again/,
  });
  const other = data.map((one, i) => (i === 3 ? { ...one, audio: one.audio.map((x) => -x) } : one));
  await t.throwsAsync(finetune({ output, resume: true, data: other }).result, {
    code: "ERR_OPTION",
    message: /the training data differs/,
  });
  await t.throwsAsync(finetune({ output, resume: true, data, language: "de" }).result, {
    code: "ERR_OPTION",
    message: /language was en, and is de now/,
  });
  await finetune({ output, resume: true, data }).result;
  t.true(adapterBytes(output).equals(adapterBytes(whole.output as string)));
});

test.serial("micro-batches give the losses of one batch", async (t) => {
  const given = await loadModel(model, { device: "cpu", task: "speech-to-text" });
  const objective = createObjective(given, { language: "de", maxLength: 512 });
  const read = await objective.createExamples(await readSpokenTexts("data", data, undefined), undefined);
  const losses = (batchSize: number, gradientAccumulation: number): Promise<number[]> => {
    const plan = new BatchPlan(read, { batchSize, gradientAccumulation, seed: 1, padTokenId: 2, steps: 3 });
    return planLosses(objective, plan);
  };
  const [one, many] = [await losses(8, 1), await losses(1, 8)];
  for (const [i, loss] of one.entries()) t.true(Math.abs(loss - (many[i] as number)) < 1e-5 * loss);
  // A batch trains on the labels that transformers would get: all tokens but the first.
  const row = read.at(0);
  const letters = Array.from("high", (letter) => 3 + 1 + letter.charCodeAt(0) - 32);
  t.deepEqual([...(row?.ids ?? [])], [99, 101, 103, 104, ...letters, 2]);
  given.dispose();
});

test.serial("an English-only model takes no language", async (t) => {
  const english = await tinyWhisper({ multilingual: false });
  await finetune(options("cpu", { model: english, language: undefined, steps: 1 })).result;
  const refused = finetune(options("cpu", { model: english, steps: 1 })).result;
  await t.throwsAsync(refused, { code: "ERR_OPTION", message: /English-only; leave language out/ });
});

test.serial("unsuitable data is refused by row, and no output is left", async (t) => {
  const audio = Float32Array.of(0.1, 0.2);
  const long = new Float32Array(16_001).fill(0.1);
  async function* broken(): AsyncGenerator<SpokenText> {
    yield data[0] as SpokenText;
    await Promise.resolve();
    throw new RangeError("the microphone is gone");
  }
  const cases: [given: unknown, code: string | undefined, message: RegExp, more?: object][] = [
    [[], "ERR_DATA_ROW", /data: there are no rows/],
    [
      [
        { audio, text: "a" },
        { audio: [0.1], text: "b" },
      ],
      "ERR_DATA_ROW",
      /data\[1\]: audio must be a Float32Array/,
    ],
    [
      [{ audio: Int16Array.of(1), text: "b" }],
      "ERR_DATA_ROW",
      /data\[0\]: audio .*divide 16-bit samples by 32768/,
    ],
    [[{ audio: Float32Array.of(0, NaN), text: "b" }], "ERR_DATA_ROW", /data\[0\]: audio has NaN at sample 1/],
    [[{ audio: new Float32Array(), text: "b" }], "ERR_DATA_ROW", /data\[0\]: audio is empty/],
    [[{ audio }], "ERR_DATA_ROW", /data\[0\]: the field "text" is missing/],
    [[{ audio, text: 3 }], "ERR_DATA_ROW", /data\[0\]: "text" must be a string, got a number/],
    [["a.wav"], "ERR_FILE_NOT_FOUND", /a\.wav: no such data file/],
    [
      [{ audio, text: "a" }, "a.wav"],
      "ERR_DATA_ROW",
      /data\[1\]: the row is \{ audio, text \}, not "a\.wav"/,
    ],
    [
      [...data, { audio: long, text: "a" }],
      "ERR_DATA_ROW",
      /data\[24\]: the speech is 1\.1 s long, .*window is 1 s/,
    ],
    [broken(), undefined, /the microphone is gone/],
    [3, "ERR_OPTION", /data must be the name of a file, an array of names, or rows, got 3/],
    [
      data,
      "ERR_OPTION",
      /packing of rows of speech: each recording is a separate input; leave packing out/,
      { packing: true },
    ],
    [data, "ERR_OPTION", /dataFormat.*instead of a file/, { dataFormat: "jsonl" }],
    [data, "ERR_OPTION", /give the language that is spoken, one of en, de/, { language: undefined }],
    [data, "ERR_OPTION", /language must be one of en, de, got "klingon"/, { language: "klingon" }],
    [data, "ERR_OPTION", /language must be a string/, { language: ["de"] }],
    [data, "ERR_OPTION", /eva.*with rows of speech/, { lora: { initLoraWeights: "eva" } }],
    [tinyData(3), "ERR_DATA_ROW", /data\.jsonl:1: there is no "audio", and the model transcribes speech/],
    [
      data,
      "ERR_DATA_ROW",
      /data\[0\]: the row has "audio", but the model is a language model/,
      { model: tinyModel() },
    ],
    [data, "ERR_DATA_ROW", /rows\.jsonl:1: there is no "audio"/, { evalData: rowsFile([{ text: "a" }]) }],
  ];
  for (const [given, code, message, more] of cases) {
    const all = options("cpu", { data: given as SpokenText[], ...more });
    const found = await t.throwsAsync(finetune(all).result, { message }, String(message));
    t.is((found as { code?: string }).code, code, String(message));
    t.throws(() => readFileSync(all.output as string), { code: "ENOENT" });
  }
  const classifier = await loadModel(await tinyEncoder(), {
    device: "cpu",
    task: "sequence-classification",
    numLabels: 2,
    onNotice: () => {},
  });
  await t.throwsAsync(finetune(options("cpu", { model: classifier })).result, {
    code: "ERR_DATA_ROW",
    message: /data\[0\]: there is no "label", and the model is a classifier/,
  });
  classifier.dispose();
});

test.serial("the WAV files that a data file names are checked before a model is loaded", async (t) => {
  const folder = temporary();
  const file = join(folder, "rows.jsonl");
  const read = (...lines: object[]) => {
    writeFileSync(file, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
    return readData(file);
  };
  const refused = (message: RegExp, ...lines: object[]) =>
    t.throwsAsync(read(...lines), { code: "ERR_DATA_ROW", message });
  const own = speechFile(data.slice(0, 1));
  writeFileSync(join(folder, "a.wav"), readFileSync(join(dirname(own), "0.wav")));
  writeFileSync(join(folder, "b.wav"), "RIFF");
  const good = { audio: "a.wav", text: "a" };
  await refused(/rows\.jsonl:2: none\.wav is not there/, good, { audio: "none.wav", text: "a" });
  await refused(/rows\.jsonl:1: b\.wav is not a WAV file/, { audio: "b.wav", text: "a" });
  await refused(/rows\.jsonl:1: "audio" is empty/, { audio: "", text: "a" });
  await refused(/rows\.jsonl:1: "audio" must be a string, got an array/, { audio: [1], text: "a" });
  await refused(/rows\.jsonl:1: the field "text" is missing/, { audio: "a.wav" });
  await refused(/rows\.jsonl:1: the row has both "audio" and "label"/, { ...good, label: "x" });
  await refused(/rows\.jsonl:2: the row has no "audio", and line 1 has one/, good, { text: "a" });
  await refused(/rows\.jsonl:2: the row has a "audio", and line 1 has none/, { text: "a" }, good);
  await refused(/rows\.jsonl:1: \. is not a file/, { audio: ".", text: "a" });
  // Another sound under the same name is different data.
  const before = await read(good);
  writeFileSync(join(folder, "a.wav"), readFileSync(join(dirname(speechFile(data.slice(1, 2))), "0.wav")));
  t.notDeepEqual(listHashes(await read(good)), listHashes(before));
  // A file that disappears before it is read.
  const parts = before.kind === "speech" ? before.sources[0]?.parts() : undefined;
  rmSync(join(folder, "a.wav"));
  for await (const { part } of parts ?? [])
    t.throws(() => part[0]?.samples(), {
      code: "ERR_DATA_ROW",
      message: /rows\.jsonl:1: a\.wav is not there/,
    });
  t.plan(11);
});
