import { join } from "node:path";

import test from "ava";
import { loadModel, LowrankError, tensor, type ErrorCode, type TextEncoder } from "../../src/index.js";
import type { Tokenizer } from "../../src/models/tokenizer.js";
import { testDevices } from "../devices.js";
import { goldenModel } from "../hashed.js";
import { error, goldens } from "../parity/goldens.js";

/** Numbers separated by spaces as ids, with a start and an end token. */
const numbers = {
  encodeAll: (texts: string[]) =>
    Promise.resolve(texts.map((text) => Int32Array.of(0, ...text.split(" ").filter(Boolean).map(Number), 2))),
};

async function encoder(device: string): Promise<TextEncoder> {
  const folder = goldenModel(join(goldens, "families", "roberta"));
  const model = await loadModel(folder, {
    device: device as "cpu",
    task: "feature-extraction",
    onNotice: () => {},
  });
  model.tokenizer = numbers as unknown as Tokenizer;
  return model;
}

const TEXTS = ["5 6 7", "", "9", "11 12 13 14 15 16 17 18 19 20 21 22", "30 31"];

for (const device of testDevices()) {
  test(`on ${device} a batch of texts gives the same vectors as single texts`, async (t) => {
    const model = await encoder(device);
    model.train();
    for (const pooling of ["mean", "cls"] as const) {
      const together = await model.embed(TEXTS, { pooling });
      for (const [i, text] of TEXTS.entries()) {
        const [alone] = await model.embed([text], { pooling });
        t.true(error(together[i]!, alone!) < 1e-5, `${pooling} of "${text}"`);
        t.true(Math.abs(alone!.reduce((sum, v) => sum + v * v, 0) - 1) < 1e-5);
      }
    }
    t.true(model.training);
    t.deepEqual(await model.embed([]), []);
    model.dispose();
  });
}

test("mean pooling averages the hidden states, and a truncated text keeps its end token", async (t) => {
  const model = await encoder("cpu");
  const [mean] = await model.embed(["5 6"], { normalize: false });
  const { hidden } = model.forward(tensor(Int32Array.of(0, 5, 6, 2), { shape: [1, 4], device: "cpu" }));
  const values = await hidden.data();
  const expected = Array.from({ length: 32 }, (_, c) =>
    [0, 1, 2, 3].reduce((sum, row) => sum + (values[row * 32 + c] as number) / 4, 0),
  );
  t.true(error(mean!, expected) < 1e-6);
  const long = Array.from({ length: 40 }, (_, i) => i + 3).join(" ");
  const [cut] = await model.embed([long]);
  const [kept] = await model.embed([long.split(" ").slice(0, 22).join(" ")]);
  t.deepEqual(cut, kept);
  const [shorter] = await model.embed([long], { maxLength: 5 });
  t.deepEqual(shorter, (await model.embed(["3 4 5"]))[0]);
  model.dispose();
});

test("invalid input for an embedding is refused", async (t) => {
  const model = await encoder("cpu");
  const refused = async (run: () => Promise<unknown>, code: ErrorCode, message: RegExp) => {
    const error = await t.throwsAsync(run, { instanceOf: LowrankError, message });
    t.is(error?.code, code);
  };
  await refused(
    () => model.embed(["5"], { pooling: "median" as "cls" }),
    "ERR_OPTION",
    /one of mean, cls, max, mean_sqrt_len, weightedmean, lasttoken, got "median"/,
  );
  await refused(() => model.embed(["5"], { batchSize: 0 }), "ERR_OPTION", /batchSize/);
  await refused(() => model.embed(["5"], { maxLength: 1.5 }), "ERR_OPTION", /maxLength/);
  await t.throwsAsync(model.embed(["5"], { signal: AbortSignal.abort(new Error("no more")) }), {
    message: "no more",
  });
  model.tokenizer = undefined;
  await refused(() => model.embed(["5"]), "ERR_FILE_NOT_FOUND", /has no tokenizer\.json/);
  model.dispose();
});
