/** A run's device memory is estimated beforehand, and a limit on it is respected. */
import test from "ava";

import { estimate, finetune, memory, type FinetuneOptions } from "../../src/index.js";
import { session } from "../../src/native/binding.js";
import { temporary } from "../hashed.js";
import { runOf, SETTINGS } from "./memory-settings.js";

/** The documented accuracy of an estimate. */
const WITHIN = 0.02;

interface Measured {
  peak: number;
  mapped: number;
  losses: number[];
  chosen: readonly string[];
}

/** Runs training; returns the peak memory of the device, and the losses. */
async function measured(options: FinetuneOptions): Promise<Measured> {
  session().restartPeak("cpu");
  const before = memory("cpu");
  let mapped = 0;
  const run = finetune({ ...options, output: temporary() });
  const losses: number[] = [];
  let chosen: readonly string[] = [];
  for await (const event of run) {
    if (event.type === "start") chosen = event.memory?.chosen ?? [];
    if (event.type !== "step") continue;
    losses.push(event.loss);
    mapped = Math.max(mapped, memory("cpu").mapped - before.mapped);
  }
  await run.result;
  return { peak: memory("cpu").peak - before.reserved, mapped, losses, chosen };
}

let fitted = 0;

for (const setting of SETTINGS) {
  test.serial(`${setting.name}: the peak is estimated within 2%, and a limit is respected`, async (t) => {
    const options = await runOf(setting, "cpu");
    const told = await estimate(options);
    const run = await measured(options);
    const off = told.peakBytes / run.peak - 1;
    t.log(
      `estimated ${told.peakBytes}, measured ${run.peak} (${(100 * off).toFixed(2)}%), in files ${run.mapped}`,
    );
    t.true(Math.abs(off) <= WITHIN, `estimated ${told.peakBytes}, measured ${run.peak}`);
    t.is(told.mapped, run.mapped);
    const { weights, adapters, optimizer, activations } = told;
    t.is(weights - told.mapped + adapters + optimizer + activations, told.peakBytes);
    t.true(weights > 0 && adapters > 0 && optimizer > 0 && activations > 0, JSON.stringify(told));
    t.true(told.fits);

    const bound = Math.floor(0.85 * (run.peak + run.mapped));
    const within = await estimate({ ...options, memory: bound });
    t.false(within.fits);
    if (within.suggestion === undefined) {
      await t.throwsAsync(finetune({ ...options, memory: bound, output: temporary() }).result, {
        code: "ERR_OUT_OF_MEMORY",
        message: /no settings were found that fit/,
      });
      return;
    }
    fitted++;
    const { given = [] } = within;
    const refused = { ...options, memory: bound, output: temporary() };
    if (given.length > 0)
      await t.throwsAsync(finetune(refused).result, {
        code: "ERR_OUT_OF_MEMORY",
        message: new RegExp(`${given[0]} .* given, .* in the way: `),
      });
    // A user who takes the suggestion changes the given options; the run chooses the others itself.
    const suggested = await measured({ ...options, ...within.suggestion });
    const kept = given.length > 0 ? suggested : await measured({ ...options, memory: bound });
    t.log(`within ${bound}: held ${kept.peak + kept.mapped} by ${(within.costs ?? []).join("; ")}`);
    t.true(kept.peak + kept.mapped <= bound, `bound ${bound}, held ${kept.peak} and ${kept.mapped}`);
    t.is(suggested.peak, kept.peak);
    if (given.length === 0) t.deepEqual(kept.chosen, within.costs);
    const changed = Object.keys(within.suggestion);
    // Checkpointing changes no bit. Other batch sizes change the rounding of sums and the draws of dropout.
    const exact = changed.join() === "gradientCheckpointing";
    const same = changed.every((name) =>
      /^(gradientCheckpointing|batchSize|gradientAccumulation)$/.test(name),
    );
    if (exact) t.deepEqual(kept.losses, run.losses);
    if (exact || !same || setting.drops) return;
    for (const [i, loss] of run.losses.slice(0, 10).entries())
      t.true(
        Math.abs((kept.losses[i] as number) / loss - 1) < 1e-4,
        `step ${i + 1}: ${loss}, ${kept.losses[i]}`,
      );
  });
}

test.serial("most settings can be made to fit into less", (t) => {
  t.log(`${fitted} of ${SETTINGS.length}`);
  t.true(fitted >= SETTINGS.length / 2);
});
