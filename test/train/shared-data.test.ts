/** Data that ranks read and tokenise in parts: the rows, losses and messages of one process. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { finetune, type FinetuneOptions, type StartEvent, type TrainEvent } from "../../src/index.js";
import { PIECE } from "../../src/data/source/pieces.js";
import { temporary, tinyModel } from "../hashed.js";
import { runOnRanks } from "../ranks/processes.js";
import { tinyEncoderWithoutDropout } from "../tiny-encoder.js";
import { wave } from "../tiny-whisper.js";
import { adapterBytes, collect, quick } from "./quick.js";

type Options = FinetuneOptions & { output: string };

/** Texts of 40 to 4,000 characters. The longest is in the last part. */
const texts = Array.from({ length: 600 }, (_, i) => {
  const words = `the whale ${i} swam on and on, and the sea was wide. `;
  return words.repeat(i === 570 ? 75 : 1 + ((i * 13) % 50));
});

/** Writes rows, filled with spaces, so that three ranks read parts of the file. */
function rows(shape: (text: string, i: number) => object): string {
  const file = join(temporary(), "rows.jsonl");
  const width = Math.ceil((3.2 * PIECE) / texts.length);
  writeFileSync(file, texts.map((text, i) => `${JSON.stringify(shape(text, i)).padEnd(width)}\n`).join(""));
  return file;
}

const options = (data: string, more: Partial<FinetuneOptions> = {}): Options =>
  quick({ model: tinyModel(), data }, "cpu", {
    batchSize: 4,
    steps: 6,
    evalSplit: 0.01,
    evalEvery: 3,
    ...more,
  }) as Options;

const losses = (events: TrainEvent[]): number[] =>
  events.flatMap((event) => (event.type === "step" || event.type === "eval" ? [event.loss] : []));
const find = <T extends TrainEvent["type"]>(events: TrainEvent[], type: T) =>
  events.find((event) => event.type === type) as Extract<TrainEvent, { type: T }>;
/** Returns a run's figures and warnings about its data. */
const describe = (events: TrainEvent[]) => {
  const { examples, evalExamples, tokens, data, steps, sequences } = find(events, "start") as StartEvent;
  const warnings = events.flatMap((event) => (event.type === "warning" ? [event.message] : []));
  return { examples, evalExamples, tokens, data, steps, sequences, warnings, rows: find(events, "rows") };
};

const CASES: Record<string, () => Promise<Options>> = {
  "rows of text, some truncated": async () => options(rows((text) => ({ text }))),
  "prompts, some without a completion": async () =>
    options(
      rows((text, i) => ({ prompt: text.slice(0, (i % 90) + 1), completion: i % 100 === 99 ? "" : "wide" })),
    ),
  "conversations in ShareGPT's format": async () =>
    options(
      rows((text, i) => ({
        conversations: [
          { from: "human", value: text.slice(0, 10 + (i % 20)) },
          ...(i % 50 === 49 ? [] : [{ from: "gpt", value: "wide" }]),
        ],
      })),
      { chatTemplate: template },
    ),
  "packed rows": async () =>
    options(
      rows((text) => ({ text: text.slice(0, 40) })),
      { packing: true },
    ),
  "labelled rows": async () =>
    options(
      rows((text, i) => ({ text, label: i === 590 ? "rare" : i % 3 === 0 ? "sea" : "land" })),
      { model: await tinyEncoderWithoutDropout() },
    ),
};

const template = join(temporary(), "template.jinja");
writeFileSync(
  template,
  "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}",
);

for (const [name, create] of Object.entries(CASES)) {
  test.serial(`ranks that read parts give the losses and messages of one process: ${name}`, async (t) => {
    const own = await create();
    const alone = await collect(finetune(own));
    for (const size of [2, 3]) {
      const output = join(temporary(), "out");
      const runs = await runOnRanks(size, { ...own, output });
      for (const { events, error } of runs) {
        t.is(error, undefined);
        t.deepEqual(describe(events), describe(alone));
        t.is(losses(events).length, losses(alone).length);
        // Sums of f32 in another order.
        for (const [i, loss] of losses(events).entries())
          t.true(Math.abs(loss - losses(alone)[i]!) <= 1e-6 * Math.max(1, loss), `${i}: ${loss}`);
      }
      t.true(adapterBytes(output).length > 0);
    }
  });
}

test.serial("a run on ranks continues in one process, and the other way round", async (t) => {
  const own = options(
    rows((text) => ({ text })),
    { saveEvery: 3, keep: 9 },
  );
  const whole = losses(await collect(finetune(own)));
  const shared = { ...own, output: join(temporary(), "out") };
  await runOnRanks(2, shared);
  const output = join(temporary(), "resumed");
  const alone = await collect(finetune({ resume: join(shared.output, "checkpoint-3"), output }));
  const [ranks] = await runOnRanks(3, { resume: join(own.output, "checkpoint-3"), output: `${output}-2` });
  t.is(ranks!.error, undefined);
  for (const events of [alone, ranks!.events]) {
    const after = losses(events);
    t.is(after.length, 4);
    for (const [i, loss] of after.entries())
      t.true(Math.abs(loss - whole[i + whole.length - 4]!) <= 1e-6 * Math.max(1, loss), `${loss}`);
  }
});

test.serial(
  "all ranks throw one error that names the line of a wrong row, whichever rank reads it",
  async (t) => {
    const good = rows((text) => ({ text }));
    const lines = readFileSync(good, "utf8").split("\n");
    const wrong = (at: number, line: string): string => {
      const file = join(temporary(), "rows.jsonl");
      writeFileSync(file, lines.map((before, i) => (i === at ? line : before)).join("\n"));
      return file;
    };
    for (const [at, line, expected] of [
      [540, "{", /^rank 1: .*rows\.jsonl:541: not JSON: \{/],
      [540, '{"text": 1}', /^rank 1: .*rows\.jsonl:541: "text" must be a string, got a number$/],
      [540, '{"text": "a", "label": "b"}', /rows\.jsonl:541: the row has a "label", and line \d+ has none/],
      [0, "[", /^rank 0: .*rows\.jsonl:1: the file begins with an array/],
    ] as const) {
      const runs = await runOnRanks(2, options(wrong(at, line)));
      t.regex(runs[0]!.error ?? "", expected);
      t.is(runs[1]!.error, runs[0]!.error);
    }
    // All rows of the second part have a label.
    const mixed = rows((text, i) => (i < 300 ? { text } : { text, label: "a" }));
    const runs = await runOnRanks(2, options(mixed));
    t.regex(
      runs[0]!.error ?? "",
      /rows\.jsonl:\d+: the row has a "label", and line \d+ has none; give every row/,
    );
    t.is(runs[1]!.error, runs[0]!.error);
  },
);

test.serial("rows of speech are recognised in parts of a file, as in one process", async (t) => {
  const audio = join(temporary(), "silence.wav");
  writeFileSync(audio, wave(new Float32Array(1600)));
  const own = options(rows((text) => ({ audio, text })));
  const { message } = (await t.throwsAsync(collect(finetune(own)))) as Error;
  t.regex(message, /rows\.jsonl:1: the row has "audio", but the model is a language model/);
  for (const { error } of await runOnRanks(2, own)) t.is(error, message);
});

test.serial("ranks that see other files under the same path throw one error", async (t) => {
  const good = readFileSync(
    rows((text) => ({ text })),
    "utf8",
  );
  const others: [string, RegExp][] = [
    [good.replaceAll("whale", "squid"), /rows\.jsonl has other content; give all ranks the same file$/],
    [good.slice(0, -500), /rows\.jsonl has \d+ bytes on rank 0 and \d+ on rank 1; give all ranks the same/],
  ];
  for (const [other, expected] of others) {
    const folders = [good, other].map((text) => {
      const folder = temporary();
      writeFileSync(join(folder, "rows.jsonl"), text);
      return folder;
    });
    const runs = await runOnRanks(2, options("rows.jsonl"), { cwd: (rank) => folders[rank]! });
    t.regex(runs[0]!.error ?? "", /^finetune: the ranks differ in the training data: /);
    t.regex(runs[0]!.error ?? "", expected);
    t.is(runs[1]!.error, runs[0]!.error);
    const [same] = folders as [string];
    const [run] = await runOnRanks(2, options("rows.jsonl"), { cwd: () => same });
    t.is(run!.result?.steps, 6);
  }
});
