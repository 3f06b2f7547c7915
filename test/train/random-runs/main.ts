/**
 * Random runs by hand: `node --import=tsx test/train/random-runs/main.ts SEED COUNT`. Prints how often each thing
 * happened, and the first failure with the steps that led to it. LOWRANK_MAIN names a build's `main.js` instead of the
 * sources.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { buildTests } from "../../../scripts/build-tests.mjs";
import { tinyData, tinyModel } from "../../hashed.js";
import { Random } from "./random.js";
import { References } from "./reference.js";
import { Scenario, type Tally } from "./scenario.js";

const [first = 1, count = 200] = process.argv.slice(2).map(Number);
await buildTests();
const [model, data] = [tinyModel(), tinyData()];
const references = new References();
const tally: Tally = {};
let failed = 0;
const began = performance.now();
for (let seed = first; seed < first + count; seed++) {
  const room = mkdtempSync(join(tmpdir(), "lowrank-random-"));
  const mounts = process.platform === "linux" && process.getuid?.() === 0;
  const scenario = new Scenario({ model, data, room, references, random: new Random(seed), tally, mounts });
  try {
    await scenario.run();
  } catch (error) {
    failed += 1;
    console.error(`seed ${seed}: ${(error as Error).message}\n  ${scenario.log.join("\n  ")}\n  in ${room}`);
    continue;
  }
  rmSync(room, { recursive: true });
  if (seed % 10 === 0) console.error(`${seed}: ${((performance.now() - began) / 1000).toFixed(0)} s`);
}
console.log(JSON.stringify({ count, failed, ...tally }, null, 2));
process.exitCode = failed === 0 ? 0 : 1;
