/** Some random runs of the command; `random-runs/main.ts` runs any number of them. */
import test from "ava";

import { temporary, tinyData, tinyModel } from "../hashed.js";
import { Random } from "./random-runs/random.js";
import { References } from "./random-runs/reference.js";
import { Scenario, type Tally } from "./random-runs/scenario.js";

const RUNS = 6;

test("random runs with kills, signals, closed and full streams, full disks, rivals and branches", async (t) => {
  t.timeout(600_000);
  const [model, data, references] = [tinyModel(), tinyData(), new References()];
  const tally: Tally = {};
  for (let seed = 1001; seed < 1001 + RUNS; seed++) {
    const random = new Random(seed);
    const scenario = new Scenario({
      model,
      data,
      room: temporary(),
      references,
      random,
      tally,
      mounts: false,
    });
    await t.notThrowsAsync(() => scenario.run(), `seed ${seed}\n${scenario.log.join("\n")}`);
  }
  t.log(JSON.stringify(tally));
});
