import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import {
  finetune,
  loadModel,
  lora,
  manualSeed,
  memory,
  safetensors,
  saveModel,
  tensor,
  ViTForImageClassification,
  type EvalEvent,
  type FinetuneOptions,
} from "../../src/index.js";
import { load } from "../../src/cli/options/models.js";
import { BatchPlan } from "../../src/data/batches.js";
import { readData } from "../../src/data/read.js";
import { evaluate } from "../../src/train/evaluate.js";
import { readLabels } from "../../src/train/label-names.js";
import { createObjective } from "../../src/train/prepare.js";
import { scope } from "../../src/index.js";
import { atRest } from "../at-rest.js";
import { testDevices } from "../devices.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { stepLosses } from "../models/trained.js";
import { rowsFile, seaAndLand, tinyEncoder } from "../tiny-encoder.js";
import { planLosses } from "./plan-losses.js";
import { adapterBytes, collect, quick } from "./quick.js";

const model = await tinyEncoder();
const data = rowsFile(seaAndLand(48));
const evalData = rowsFile(seaAndLand(60).slice(48));

const options = (device: string, more: Partial<FinetuneOptions> = {}): FinetuneOptions =>
  quick({ model, data }, device, { batchSize: 4, steps: 18, ...more });

const quiet = { onNotice: () => {} };

for (const device of testDevices()) {
  test.serial(
    `on ${device} a classifier learns, its head and its labels are saved, and its memory is freed`,
    async (t) => {
      const live = (): number => memory(device as "cpu").live;
      const before = (await atRest(device)).live;
      const run = finetune(options(device, { evalData, evalEvery: 9 }));
      const events = await collect(run);
      const { adapter } = await run.result;
      const start = events.find((event) => event.type === "start");
      t.deepEqual(start?.labels, ["land", "sea"]);
      t.is(start?.examples, 48);
      const evals = events.filter((event): event is EvalEvent => event.type === "eval");
      t.deepEqual(
        evals.map(({ step }) => step),
        [0, 9, 18],
      );
      const last = evals.at(-1)?.classes;
      t.is(last?.accuracy, 1, JSON.stringify(evals));
      t.is(last?.macroF1, 1);
      t.deepEqual(last?.labels, ["land", "sea"]);
      t.deepEqual(last?.confusion, [
        [8, 0],
        [0, 4],
      ]);
      t.deepEqual(readLabels(adapter), ["land", "sea"]);
      const config = JSON.parse(readFileSync(join(adapter, "adapter_config.json"), "utf8")) as object;
      t.like(config, { task_type: "SEQ_CLS", modules_to_save: ["classifier", "score"], bias: "none" });
      const keys = Object.keys(
        await scope(() => safetensors.load(join(adapter, "adapter_model.safetensors"))),
      );
      t.true(keys.includes("base_model.model.classifier.weight"));
      t.true(keys.includes("base_model.model.classifier.bias"));
      t.false(keys.some((key) => key.includes("classifier.lora")));
      t.is(live(), before);

      const again = await loadModel(model, {
        device: device as "cpu",
        task: "sequence-classification",
        numLabels: 2,
        ...quiet,
      });
      await lora.loadAdapter(again, adapter);
      const objective = createObjective(again, { labels: ["land", "sea"], maxLength: 512 });
      const rows = await objective.createExamples(await readData(evalData), undefined);
      for (const batchSize of [1, 5, 12]) {
        const { loss, classes, tokens } = await evaluate(again, objective, rows, { batchSize });
        t.is(tokens, 12);
        t.is(classes?.accuracy, 1);
        // Padding is masked, so single and batched rows differ only by rounding; 1e-5 is a hundred times that.
        const told = evals.at(-1)?.loss as number;
        t.true(Math.abs(loss - told) < 1e-5, `${loss}, ${told} during training`);
      }
      again.dispose();
      t.is(live(), before);
    },
  );

  test.serial(`on ${device} a run that is stopped and resumed ends with the same bits`, async (t) => {
    const common = { steps: 6, lora: { r: 4, loraDropout: 0.1 } };
    const whole = options(device, common);
    await finetune(whole).result;
    const cut = options(device, { ...common, saveEvery: 3 });
    const run = finetune(cut);
    for await (const event of run) if (event.type === "checkpoint") void run.stop();
    const stopped = await run.result;
    t.true(stopped.stopped);
    t.deepEqual(readLabels(join(cut.output as string, "checkpoint-3")), ["land", "sea"]);
    await finetune({ ...cut, resume: true }).result;
    t.true(adapterBytes(whole.output as string).equals(adapterBytes(cut.output as string)));
  });
}

for (const [family, layers] of [
  ["roberta", ["classifier.dense", "classifier.out_proj"]],
  ["distilbert", ["classifier", "pre_classifier"]],
] as const)
  test.serial(`${family}: a two-layer head is trained in full, saved and loaded`, async (t) => {
    const encoder = await tinyEncoder(family);
    const events = await collect(finetune(options("cpu", { model: encoder, evalData, steps: 4 })));
    const end = events.at(-1);
    const adapter = end?.type === "end" ? end.adapter : "";
    const keys = Object.keys(await safetensors.load(join(adapter, "adapter_model.safetensors")));
    const head = keys.filter((key) => key.includes("classifier"));
    const tensors = layers.flatMap((layer) => [`${layer}.bias`, `${layer}.weight`]);
    t.deepEqual(
      head.sort(),
      tensors.map((name) => `base_model.model.${name}`),
    );
    const { model: again } = await load({
      model: encoder,
      adapters: [adapter],
      device: "cpu",
      signal: new AbortController().signal,
    });
    const objective = createObjective(again, { maxLength: 32 });
    t.deepEqual(objective.labels, ["land", "sea"]);
    const rows = await objective.createExamples(await readData(evalData), undefined);
    const { loss } = await evaluate(again, objective, rows, { batchSize: 4 });
    const told = events.filter((event): event is EvalEvent => event.type === "eval").at(-1)?.loss as number;
    t.true(Math.abs(loss - told) < 1e-5, `${loss}, ${told} during training`);
    again.dispose();
  });

test.serial("micro-batches give the losses of one batch", async (t) => {
  const losses = async (batchSize: number, gradientAccumulation: number): Promise<number[]> => {
    // The head is initialised randomly.
    manualSeed(1);
    const given = await loadModel(model, {
      device: "cpu",
      task: "sequence-classification",
      numLabels: 2,
      ...quiet,
    });
    const objective = createObjective(given, { labels: ["land", "sea"], maxLength: 32 });
    const rows = await objective.createExamples(await readData(data), undefined);
    const plan = new BatchPlan(rows, { batchSize, gradientAccumulation, seed: 1, padTokenId: 0, steps: 3 });
    const found = await planLosses(objective, plan);
    given.dispose();
    return found;
  };
  const [one, many] = [await losses(8, 1), await losses(1, 8)];
  for (const [i, loss] of one.entries()) t.true(Math.abs(loss - (many[i] as number)) < 1e-5 * loss);
});

test.serial(
  "a loaded model needs as many classes as the data has, and takes their names from the data",
  async (t) => {
    const given = await loadModel(model, {
      device: "cpu",
      task: "sequence-classification",
      numLabels: 3,
      ...quiet,
    });
    const refused = finetune(options("cpu", { model: given })).result;
    await t.throwsAsync(refused, {
      code: "ERR_OPTION",
      message: /has 3 classes, and the data has 2/,
    });
    t.deepEqual(lora.adapters(given), []);
    given.dispose();
    const fitting = await loadModel(model, {
      device: "cpu",
      task: "sequence-classification",
      numLabels: 2,
      ...quiet,
    });
    await finetune(options("cpu", { model: fitting, steps: 1 })).result;
    t.deepEqual(fitting.config.labels, ["land", "sea"]);
    fitting.dispose();
  },
);

test.serial("unsuitable data is refused with file and line, and no output is left", async (t) => {
  const cases: [Partial<FinetuneOptions>, string, RegExp][] = [
    [
      {
        evalData: rowsFile([
          { text: "a", label: "sea" },
          { text: "b", label: "sky" },
        ]),
      },
      "ERR_DATA_ROW",
      /rows\.jsonl:2: the label "sky" is not one of the classes; they are land, sea/,
    ],
    [
      { evalData: tinyData(3) },
      "ERR_DATA_ROW",
      /data\.jsonl:1: there is no "label", and the model is a class/,
    ],
    [
      { data: rowsFile([{ text: "a", label: "sea" }, { text: "b" }]) },
      "ERR_DATA_ROW",
      /rows\.jsonl:2: the row has no "label", and line 1 has one/,
    ],
    [{ data: rowsFile([{ text: "a", label: 1 }]) }, "ERR_DATA_ROW", /every row has the label 1/],
    [{ data: tinyData(3) }, "ERR_UNSUPPORTED_MODEL", /neither a language model nor a classifier/],
    [
      { model: tinyModel() },
      "ERR_UNSUPPORTED_MODEL",
      /"sequence-classification" is not supported for llama; .*rows with a label train a classifier of texts: BERT/,
    ],
    [
      { data: tinyData(3), model: tinyModel(), evalData },
      "ERR_DATA_ROW",
      /rows\.jsonl:1: the row has a "label", but the model is a language model/,
    ],
  ];
  for (const [more, code, message] of cases) {
    const given = options("cpu", more);
    await t.throwsAsync(finetune(given).result, { code, message });
    t.throws(() => readFileSync(given.output as string), { code: "ENOENT" });
  }
});

test.serial(
  "a model of images is refused without advice about texts, and is trained from TypeScript",
  async (t) => {
    const vit = ViTForImageClassification.fromConfig(
      {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        image_size: 8,
        patch_size: 4,
        id2label: { 0: "sea", 1: "land" },
      },
      { device: "cpu" },
    );
    const folder = temporary();
    await saveModel(vit, join(folder, "vit"));
    const run = options("cpu", { model: join(folder, "vit"), data: tinyData(3), evalData: undefined });
    await t.throwsAsync(finetune(run).result, {
      code: "ERR_UNSUPPORTED_MODEL",
      message:
        /vit: classifies images, which data files do not have; train it from TypeScript with lora\.inject$/,
    });
    lora.inject(vit, { r: 2, targetModules: "all-linear" });
    const pixels = Float32Array.from({ length: 2 * 3 * 64 }, (_, i) => Math.sin(i));
    const losses = await stepLosses(
      vit,
      () => vit.loss(tensor(pixels, { shape: [2, 3, 8, 8], device: "cpu" }), Int32Array.of(0, 1)),
      { steps: 8, lr: 0.05 },
    );
    t.true((losses.at(-1) as number) < (losses[0] as number), losses.join());
    vit.dispose();
  },
);

test.serial(
  "a held-out share of classes with one row each is refused; the error asks for more rows or an evaluation file",
  async (t) => {
    const rows = [
      { text: "sss waves", label: "sea" },
      { text: "mmm hills", label: "land" },
    ];
    const run = (more: Partial<FinetuneOptions>) => finetune(options("cpu", { steps: 1, ...more })).result;
    await t.throwsAsync(run({ data: rowsFile(rows), evalSplit: 0.5 }), {
      code: "ERR_OPTION",
      message: /each of the 2 classes has one row.*give more rows, or held-out rows with evalData$/,
    });
    const doubled = await run({ data: rowsFile([...rows, ...rows]), evalSplit: 0.5, evalEvery: 1 });
    t.not(doubled.evalLoss, null);
    const given = await run({ data: rowsFile(rows), evalData: rowsFile(rows), evalEvery: 1 });
    t.not(given.evalLoss, null);
  },
);
