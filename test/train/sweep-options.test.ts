/** The options of a sweep: its space, its trials, and one error for each wrong value. */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { loadModel, LowrankError, sweep, type SweepOptions } from "../../src/index.js";
import { parseSweep } from "../../src/train/sweep/options.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";

const given = { model: tinyModel(), data: tinyData(), device: "cpu", steps: 2 };
const space = { lora: { r: [2, 3] } };

function parse(more: Partial<SweepOptions>): ReturnType<typeof parseSweep> {
  return parseSweep({ ...given, space, output: "out", ...more });
}

test("a grid has all combinations, in the order of its lists", (t) => {
  const { trials } = parse({ space: { lora: { r: [2, 4] }, optimizer: { lr: [1e-3, 1e-2] }, seed: [7] } });
  t.deepEqual(
    trials.map(({ name, values }) => [name, ...Object.values(values)]),
    [
      ["trial-001", 2, 1e-3, 7],
      ["trial-002", 2, 1e-2, 7],
      ["trial-003", 4, 1e-3, 7],
      ["trial-004", 4, 1e-2, 7],
    ],
  );
  const [first] = trials;
  t.is(first?.settings.lora.r, 2);
  // Alpha follows the rank, as in finetune.
  t.is(first?.settings.lora.loraAlpha, 4);
  t.is(first?.settings.output, join("out", "trial-001"));
});

test("random draws are distinct, in their ranges, and a function of the seed", (t) => {
  const random: SweepOptions["space"] = {
    lora: { r: { min: 2, max: 32, log: true } },
    optimizer: { lr: { min: 1e-5, max: 1e-2, log: true }, weightDecay: { min: 0, max: 0.1 } },
    schedule: ["linear", "cosine"],
  };
  const draw = (spaceSeed: number): unknown[][] =>
    parse({ space: random, trials: 200, spaceSeed }).trials.map(({ values }) => Object.values(values));
  const drawn = draw(1);
  t.is(new Set(drawn.map((values) => JSON.stringify(values))).size, 200);
  for (const [r, lr, decay] of drawn as [number, number, number][]) {
    t.true(Number.isInteger(r) && r >= 2 && r <= 32);
    t.true(lr >= 1e-5 && lr <= 1e-2);
    t.true(decay >= 0 && decay <= 0.1);
  }
  // Half of the logarithms are below the geometric mean.
  const low = drawn.filter(([, lr]) => (lr as number) < Math.sqrt(1e-7)).length;
  t.true(low > 70 && low < 130, String(low));
  t.deepEqual(new Set(drawn.map(([, , , schedule]) => schedule)), new Set(["linear", "cosine"]));
  t.deepEqual(draw(1), drawn);
  t.notDeepEqual(draw(2), drawn);
  // The first draws stay the same in a longer sweep.
  t.deepEqual(
    parse({ space: random, trials: 3, spaceSeed: 1 }).trials.map(({ values }) => Object.values(values)),
    drawn.slice(0, 3),
  );
});

const REFUSED: Record<string, [more: Record<string, unknown>, message: RegExp]> = {
  "no space": [
    { space: undefined },
    /the space is empty; give the values of at least one option, such as lora\.r/,
  ],
  "an empty space": [{ space: {} }, /the space is empty/],
  "a space that is a list": [{ space: [1] }, /the space must be an object/],
  "an unknown option": [{ space: { lora: { rank: [2] } } }, /there is no option lora\.rank .*for the space/],
  "an option without values": [{ space: { lora: { r: [] } } }, /lora\.r in the space has no values/],
  "a wrong value": [
    { space: { lora: { r: [2, 0] } } },
    /lora\.r must be a whole number of at least 1, got 0/,
  ],
  "a value twice": [{ space: { seed: [1, 1] } }, /seed in the space has the value 1 twice/],
  "a value without a list": [
    { space: { seed: 3 } },
    /seed in the space must be a list of values, or a range/,
  ],
  "an unknown key of a range": [
    { trials: 2, space: { seed: { min: 0, max: 3, step: 1 } } },
    /seed in the space has an unknown key step; a range has min, max and log/,
  ],
  "a range without max": [{ trials: 2, space: { seed: { min: 0 } } }, /a range with min and max/],
  "a range of names": [
    { trials: 2, space: { schedule: { min: 0, max: 1 } } },
    /schedule in the space must be a list of values; only numbers have ranges/,
  ],
  "an empty range": [
    { trials: 2, space: { seed: { min: 3, max: 3 } } },
    /min is 3, and max 3; max must be above/,
  ],
  "a logarithm of 0": [
    { trials: 2, space: { optimizer: { lr: { min: 0, max: 1, log: true } } } },
    /with log, min must be above 0, got 0/,
  ],
  "a range in a grid": [
    { space: { seed: { min: 0, max: 3 } } },
    /seed in the space is a range, and a grid has lists only; give a list, or the number of random draws with trials/,
  ],
  "more draws than combinations": [
    { trials: 3 },
    /trials is 3, and the space has only 2 combinations; lower it, or leave it out for all of them/,
  ],
  "more draws than values in ranges": [
    { trials: 9, space: { seed: { min: 0, max: 3 } } },
    /gave only 4 different combinations \(a range gives whole numbers, or numbers of three digits\); lower it, or widen the space/,
  ],
  "an option in the space and for all": [
    { lora: { r: 4 } },
    /lora\.r is in the space, and is given for all trials, too; give one of them/,
  ],
  "options that only some values refuse": [
    { space: { optimizer: { type: ["adamw", "sgd"], betas: [[0.9, 0.99]] } } },
    /betas has no effect with the optimizer sgd; leave it out \(in the trial with optimizer\.type sgd/,
  ],
  "several models": [
    { space: { model: ["a", "b"] } },
    /an option of the model, its data or its storage in the space/,
  ],
  "no model": [{ model: undefined }, /sweep takes model/],
  "no data": [{ data: undefined }, /sweep takes data/],
  "an unknown option of finetune": [
    { batchsize: 2 },
    /there is no option batchsize \(did you mean batchSize\?\)/,
  ],
  "a number of trials": [{ trials: 0 }, /trials must be a whole number of at least 1, got 0/],
  "a number of adapters side by side": [
    { sideBySide: 1.5 },
    /sideBySide must be a whole number of at least 1/,
  ],
  "a seed of the space": [{ spaceSeed: -1 }, /spaceSeed must be a whole number of at least 0/],
  resuming: [
    { resume: true },
    /`?resume`? in a sweep: the same sweep in the same folder continues by itself/,
  ],
  "a dashboard": [{ dashboard: true }, /dashboard and profile in a sweep: they show a single run/],
  "shares of devices": [
    { deviceShares: [1, 2] },
    /deviceShares, ranks and deterministic in a sweep: each adapter trains on one device/,
  ],
  "an unknown key of halving": [{ halving: { every: 2, most: 1 } }, /halving: there is no option most/],
  "halving without steps": [{ halving: {} }, /halving\.every must be a whole number of at least 2/],
  "a share of halving": [
    { halving: { every: 2, keep: 1 } },
    /halving\.keep must be above 0 and below 1, got 1/,
  ],
  "halving that compares nothing": [
    { halving: { every: 4 }, steps: 4 },
    /halving\.every is 4, and the trials end after 4 steps, before any comparison; give a smaller number/,
  ],
  "halving between evaluations": [
    { halving: { every: 3 }, evalSplit: 0.2, evalEvery: 2 },
    /halving\.every is 3, and the trials are compared by their held-out losses; give evalEvery a divisor of it/,
  ],
};

for (const [name, [more, message]] of Object.entries(REFUSED)) {
  test(`refused before anything is read: ${name}`, async (t) => {
    const output = join(temporary(), "out");
    const options = { ...given, space, output, ...more } as SweepOptions;
    const thrown = await t.throwsAsync(sweep(options).result, { instanceOf: LowrankError });
    t.is(thrown?.code, "ERR_OPTION");
    t.regex(thrown?.message ?? "", message);
    t.false(existsSync(output));
  });
}

test("a loaded model is refused", async (t) => {
  const model = await loadModel(given.model, { device: "cpu" });
  const options = { ...given, space, model, output: join(temporary(), "out") };
  const thrown = await t.throwsAsync(sweep(options).result, { instanceOf: LowrankError });
  t.regex(thrown?.message ?? "", /a model that is loaded in a sweep: .*; give the model's folder/);
  model.dispose();
});

test("targets that are not in the model are refused before any trial trains", async (t) => {
  const output = join(temporary(), "out");
  const targets = { lora: { targetModules: [["q_proj"], ["qproj"]] } };
  const thrown = await t.throwsAsync(sweep({ ...given, space: targets, output }).result, {
    instanceOf: LowrankError,
  });
  t.is(thrown?.code, "ERR_NO_TARGETS");
  t.regex(thrown?.message ?? "", /qproj.*\(in the trial with lora\.targetModules qproj\)/);
  t.false(existsSync(output));
});

test("a folder with other contents is refused, and replaced with overwrite", async (t) => {
  const output = join(temporary(), "out");
  mkdirSync(join(output, "trial-002"), { recursive: true });
  const options = { ...given, space, output };
  const refused = async (): Promise<string> => {
    const thrown = await t.throwsAsync(sweep(options).result, { instanceOf: LowrankError });
    t.is(thrown?.code, "ERR_OUTPUT_EXISTS");
    return thrown?.message ?? "";
  };
  t.regex(await refused(), /trial-002: already exists, and .* has no sweep\.json; replace it with overwrite/);
  writeFileSync(join(output, "sweep.json"), "{}");
  t.regex(
    await refused(),
    /sweep\.json: is not the record of a sweep: .*; move it away, or choose another folder/,
  );
  const { trials } = await sweep({ ...options, overwrite: true }).result;
  t.true(trials.every(({ state }) => state === "done"));
  // A finished sweep of the same options has nothing left to do.
  const again = await sweep(options).result;
  t.deepEqual(again, { output, trials, stopped: false });
});

test("the remedies of the messages help", async (t) => {
  const run = async (more: Record<string, unknown>): Promise<{ warnings: string[]; done: boolean }> => {
    const running = sweep({ ...given, space, output: join(temporary(), "out"), ...more } as SweepOptions);
    const warnings: string[] = [];
    for await (const event of running) if (event.type === "warning") warnings.push(event.message);
    return { warnings, done: (await running.result).trials.every(({ state }) => state === "done") };
  };
  // Without held-out rows, and with held-out rows that depend on the seed.
  const [heldOut, bySeed] = [
    /give evalData or evalSplit to compare/,
    /give evalData to compare them on the same/,
  ];
  const plain = await run({});
  t.true(plain.done && plain.warnings.some((one) => heldOut.test(one)));
  const split = await run({ evalSplit: 0.2, space: { seed: [0, 1] } });
  t.false(split.warnings.some((one) => heldOut.test(one)));
  t.true(split.warnings.some((one) => bySeed.test(one)));
  const separate = await run({ evalData: tinyData(4), space: { seed: [0, 1] } });
  t.deepEqual(separate.warnings, []);
  // A range with a number of draws, and a list instead of a range.
  t.true((await run({ space: { seed: { min: 0, max: 9 } }, trials: 2 })).done);
  t.true((await run({ space: { seed: [0, 9] } })).done);
  // One sweep for each value of an option that all trials share, and the folder of a model.
  for (const maxLength of [16, 24]) t.true((await run({ maxLength })).done);
  // Comparisons before the last step.
  t.false((await run({ halving: { every: 2 }, steps: 4 })).done);
  // Less memory for each trial.
  const memory = 300_000;
  const large = { memory, batchSize: 8, maxLength: 60 };
  await t.throwsAsync(run(large), { message: /smaller batchSize or a shorter maxLength/ });
  t.true((await run({ ...large, batchSize: 1, maxLength: 16, gradientCheckpointing: true })).done);
});
