/** The memory of a sweep's groups is predicted within 2%. Its own file, because the device counts for the process. */
import { join } from "node:path";

import test from "ava";
import { memory, sweep, trim, type SweepOptions } from "../../src/index.js";
import { locateDefaultData, locateDefaultModel } from "../../src/models/default.js";
import { session } from "../../src/native/binding.js";
import { atRest } from "../at-rest.js";
import { temporary, tinyData } from "../hashed.js";

const space: SweepOptions["space"] = {
  lora: { r: [4, 16], targetModules: [["q_proj", "v_proj"], "all-linear"] },
  seed: [0, 1],
};

const CASES: Record<string, Partial<SweepOptions>> = {
  "blocks of text": { data: locateDefaultData() },
  "rows of different lengths": { data: tinyData(60) },
  evaluations: { data: tinyData(60), evalSplit: 0.2, evalEvery: 3 },
  "gradient checkpointing": { data: locateDefaultData(), gradientCheckpointing: true, maxLength: 128 },
};

for (const [name, more] of Object.entries(CASES)) {
  test.serial(`the predicted memory of eight adapters is within 2%: ${name}`, async (t) => {
    await trim("cpu");
    const before = await atRest("cpu");
    session().restartPeak("cpu");
    const run = sweep({
      model: locateDefaultModel(),
      data: locateDefaultData(),
      device: "cpu",
      steps: 6,
      batchSize: 2,
      gradientAccumulation: 2,
      maxLength: 64,
      output: join(temporary(), "sweep"),
      space,
      ...more,
    });
    let predicted = 0;
    for await (const event of run) if (event.type === "group") predicted = event.memory.peakBytes;
    await run.result;
    const used = memory("cpu").peak - before.reserved;
    t.log(`${predicted} predicted, ${used} used`);
    t.true(Math.abs(predicted / used - 1) < 0.02, `${predicted} predicted, ${used} used`);
  });
}
