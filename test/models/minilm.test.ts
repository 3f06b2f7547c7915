/**
 * A real pretrained encoder: all-MiniLM-L6-v2, in the folder that LOWRANK_MINILM names, on twenty sentences. The
 * expected ids and vectors come from transformers (test/parity/minilm.py).
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";

import { loadModel } from "../../src/index.js";
import { testDevices } from "../devices.js";
import { error, goldens, onHost } from "../parity/goldens.js";

const folder = process.env["LOWRANK_MINILM"];

if (folder === undefined) {
  test("all-MiniLM-L6-v2", (t) => {
    t.log("not run: set LOWRANK_MINILM to the model's folder");
    t.pass();
  });
} else {
  const { sentences, ids } = JSON.parse(readFileSync(join(goldens, "minilm.json"), "utf8")) as {
    sentences: string[];
    ids: number[][];
  };
  for (const device of testDevices()) {
    test.serial(`twenty sentences on ${device} have transformers' embeddings`, async (t) => {
      const host = await onHost(join(goldens, "minilm.safetensors"));
      const model = await loadModel(folder, { device, task: "feature-extraction" });
      for (const [i, sentence] of sentences.entries()) {
        const own = [...model.tokenizer!.encode(sentence)];
        const cut = own.length > 512 ? [...own.slice(0, 511), own.at(-1)] : own;
        t.deepEqual(cut, ids[i], sentence);
      }
      const began = performance.now();
      const mean = await model.embed(sentences);
      const seconds = (performance.now() - began) / 1000;
      const cls = await model.embed(sentences, { pooling: "cls", normalize: false });
      const golden = (kind: string, i: number) => host[kind]!.data.subarray(i * 384, (i + 1) * 384);
      const cosines = mean.map((vector, i) =>
        vector.reduce((sum, value, j) => sum + value * (golden("mean", i)[j] as number), 0),
      );
      const worst = Math.min(...cosines);
      const off = Math.max(...cls.map((vector, i) => error(vector, golden("cls", i))));
      t.log(
        `${seconds.toFixed(2)} s; cosine 1 − ${(1 - worst).toExponential(1)}, cls ${off.toExponential(1)}`,
      );
      t.true(worst > 1 - 1e-4, `a vector's cosine with transformers' is ${worst}`);
      // Six layers in another order of summation: some tens of roundings of 6e-8.
      t.true(off < 1e-5, `a first token is off by ${off}`);
      model.dispose();
    });
  }
}
