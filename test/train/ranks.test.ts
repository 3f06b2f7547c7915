/** Runs on several ranks: the losses of one process, the same bits twice, one error on all ranks. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { finetune, type FinetuneOptions, type StartEvent, type TrainEvent } from "../../src/index.js";
import { connectLaunched, countLaunchedRanks } from "../../src/ranks/launcher.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { type RankRun, runOnRanks } from "../ranks/processes.js";
import { rowsFile, seaAndLand, tinyEncoderWithoutDropout } from "../tiny-encoder.js";
import { adapterBytes, collect, quick } from "./quick.js";

const given = { model: tinyModel(), data: tinyData() };
type Options = FinetuneOptions & { output: string };
const options = (more: Partial<FinetuneOptions> = {}): Options =>
  quick(given, "cpu", { batchSize: 4, ...more }) as Options;

const losses = (events: TrainEvent[]): number[] =>
  events.flatMap((event) => (event.type === "step" || event.type === "eval" ? [event.loss] : []));

const CASES: Record<string, Partial<FinetuneOptions>> = {
  "rows of a file": {},
  "an evaluation of held-out rows": { evalSplit: 0.3, evalEvery: 3 },
  "a step with fewer rows than ranks": { batchSize: 2, gradientAccumulation: 2 },
  "packed rows": { packing: true, maxLength: 48, lora: { r: 2 } },
  "labelled rows with an evaluation": {
    model: await tinyEncoderWithoutDropout(),
    data: rowsFile(seaAndLand(30)),
    evalSplit: 0.3,
    evalEvery: 4,
    lora: { r: 2 },
  },
};

for (const [name, more] of Object.entries(CASES)) {
  test.serial(`ranks give the losses of one process, and the same bits twice: ${name}`, async (t) => {
    const alone = losses(await collect(finetune(options(more))));
    for (const size of [2, 4]) {
      const [first, second] = [options(more), options(more)];
      const [once, twice] = [await runOnRanks(size, first), await runOnRanks(size, second)];
      for (const { events, error } of once) {
        t.is(error, undefined);
        // All ranks have ended with the same bits.
        t.false(events.some((event) => event.type === "warning" && event.message.includes("other values")));
        t.deepEqual(losses(events), losses(twice[0]!.events));
        t.is(losses(events).length, alone.length);
        // Sums of f32 in another order.
        for (const [i, loss] of losses(events).entries())
          t.true(Math.abs(loss - alone[i]!) <= 1e-6 * Math.max(1, alone[i]!), `${i}: ${loss} ${alone[i]}`);
      }
      t.true(adapterBytes(first.output).equals(adapterBytes(second.output)));
    }
  });
}

test.serial("rank 0 alone writes, and its events have the figures of all ranks", async (t) => {
  const own = options({ saveEvery: 2 });
  const [first, second] = (await runOnRanks(2, own)) as [RankRun, RankRun];
  const start = first.events.find((event) => event.type === "start") as StartEvent;
  t.deepEqual(
    start.ranks?.map(({ host, pid, devices, rows }) => [host, pid, devices, rows]),
    [first, second].map(({ pid }) => ["here", pid, ["cpu"], 4]),
  );
  for (const event of first.events)
    if (event.type === "step") {
      t.is(event.ranks?.length, 2);
      for (const { tokensPerSecond, memoryBytes } of event.ranks!)
        t.true(tokensPerSecond > 0 && memoryBytes > 0);
    }
  t.deepEqual(losses(second.events), losses(first.events));
  t.true(existsSync(join(own.output, "checkpoint-12")));
  const recorded = readFileSync(join(own.output, "events.jsonl"), "utf8").split("\n");
  t.is(recorded.filter((line) => line.includes('"type":"step"')).length, 12);
});

test.serial("dropout draws other masks on each rank, and a resumed run has the same bits", async (t) => {
  const own = options({ lora: { r: 4, loraDropout: 0.3 }, saveEvery: 4, keep: 9 });
  await runOnRanks(3, own);
  const output = join(temporary(), "resumed");
  await runOnRanks(3, { resume: join(own.output, "checkpoint-4"), output });
  t.true(adapterBytes(output).equals(adapterBytes(own.output)));
});

test.serial("a run continues with another number of ranks, and with one process", async (t) => {
  const own = options({ saveEvery: 4, keep: 9 });
  const [whole] = (await runOnRanks(2, own)).map(({ events }) => losses(events)) as [number[]];
  for (const size of [1, 3, 4]) {
    const output = join(temporary(), "resumed");
    const [run] = await runOnRanks(size, { resume: join(own.output, "checkpoint-4"), output });
    t.is(losses(run!.events).length, 8);
    for (const [i, loss] of losses(run!.events).entries())
      t.true(Math.abs(loss - whole[i + 4]!) <= 1e-6 * Math.max(1, loss), `${size} ranks: ${loss}`);
  }
});

test.serial("a stop of one rank stops all at the same step, and saves", async (t) => {
  const own = options({ steps: 200 });
  const runs = await runOnRanks(3, own, {
    onEvent: (rank, event, stop) => {
      if (rank === 2 && event.type === "step" && event.step >= 3) stop();
    },
  });
  const steps = runs[0]!.result?.steps as number;
  t.true(runs.every(({ result }) => result?.stopped === true && result.steps === steps) && steps < 200);
  t.true(readdirSync(own.output).includes(`checkpoint-${steps}`));
});

test.serial("all ranks throw one error for options and data that differ, and for too few rows", async (t) => {
  const other = join(temporary(), "other.jsonl");
  writeFileSync(other, '{"text": "another row"}\n'.repeat(9));
  const refused: [RegExp, Partial<FinetuneOptions>, ((rank: number) => Partial<FinetuneOptions>)?][] = [
    [
      /^finetune: the ranks differ in optimizer: .*0\.01.* on rank 0, .*0\.5.* on rank 1; start all ranks with/,
      {},
      (rank) => (rank === 1 ? { optimizer: { lr: 0.5 } } : {}),
    ],
    [
      /^finetune: the ranks differ in data: .* on rank 0, .*other\.jsonl.* on rank 2; start all ranks with/,
      {},
      (rank) => (rank === 2 ? { data: other } : {}),
    ],
    [
      /^finetune: the 2 rows of a step cannot be divided among 3 ranks; raise batchSize or gradientAccumulation, or start fewer ranks$/,
      { batchSize: 2, gradientAccumulation: 1 },
    ],
    [/no such data file$/, { data: "missing.jsonl" }],
    [/^rank 1: .*threads/, {}, (rank) => (rank === 1 ? { threads: 4096 } : {})],
  ];
  for (const [expected, more, change] of refused) {
    const own = options(more);
    const errors = (await runOnRanks(3, own, { change })).map(({ error }) => error);
    t.regex(errors[0] ?? "", expected);
    t.deepEqual(errors, [errors[0], errors[0], errors[0]]);
    t.false(existsSync(join(own.output, "run.json")));
  }
  // More rows for a step are the remedy of the third.
  const [run] = await runOnRanks(3, options({ batchSize: 2, gradientAccumulation: 2 }));
  t.is(run?.result?.steps, 12);
});

test("a launcher is recognised by its variables, and needs the package", async (t) => {
  t.is(countLaunchedRanks({}), 1);
  t.is(countLaunchedRanks({ OMPI_COMM_WORLD_SIZE: "4" }), 4);
  t.is(countLaunchedRanks({ PMI_SIZE: "8" }), 8);
  t.is(countLaunchedRanks({ SLURM_STEP_NUM_TASKS: "16" }), 16);
  t.is(await connectLaunched({ PMI_SIZE: "1" }), undefined);
});
