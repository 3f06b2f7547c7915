/** A disk that is too small for a run's files is reported before the first step. */
import fs, { readdirSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { dirname } from "node:path";

import test from "ava";
import { finetune, type FinetuneOptions } from "../../../src/index.js";
import { tinyData, tinyModel } from "../../hashed.js";
import { adapterBytes, quick } from "../quick.js";

const given = { model: tinyModel(), data: tinyData() };
const { statfs } = fs.promises;

/** Makes `statfs` return these figures. */
function says(statfs: () => Promise<object>): void {
  Object.assign(fs.promises, { statfs });
  syncBuiltinESMExports();
}
const free = (bytes: number): void => says(async () => ({ blocks: 1024, bavail: bytes, bsize: 1 }));

test.afterEach.always(() => says(statfs as () => Promise<object>));

/** Bytes of an adapter's file; with checkpoints, four times its values, since there are two moments. */
const RUNS: [Partial<FinetuneOptions>, number][] = [
  [{ saveEvery: "never" }, 1],
  [{}, 4],
  [{ saveEvery: 1 }, 4],
];

for (const [more, times] of RUNS)
  test.serial(`a run with ${JSON.stringify(more)} needs room for everything it saves`, async (t) => {
    const options = { ...quick(given, "cpu", { steps: 1, ...more }) } as FinetuneOptions & { output: string };
    const first = quick(given, "cpu", { steps: 1 });
    await finetune(first).result;
    const file = adapterBytes(first.output as string);
    const values = file.byteLength - 8 - Number(file.readBigUInt64LE());
    free(times * values - 1);
    let steps = 0;
    const failing = async (): Promise<void> => {
      const run = finetune(options);
      for await (const { type } of run) if (type === "step") steps++;
      await run.result;
    };
    const error = await t.throwsAsync(failing, { code: "ERR_WRITE" });
    const told = /: the run saves .+ there, and .+ are free; free some space, or choose another folder$/;
    t.regex(error.message, told);
    t.true(error.message.startsWith(options.output));
    t.is(steps, 0);
    t.deepEqual(readdirSync(dirname(options.output)), []);
    free(times * values);
    t.is((await finetune(options).result).steps, 1);
  });

test.serial("a file system that does not report its free space is tried", async (t) => {
  for (const disk of [
    () => Promise.reject(new Error("not here")),
    async () => ({ blocks: 0, bavail: 0, bsize: 0 }),
  ]) {
    says(disk);
    t.is((await finetune(quick(given, "cpu", { steps: 1 })).result).steps, 1);
  }
});
