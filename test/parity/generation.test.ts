/** Greedy tokens, alone and in a batch, and the filters of samplers, compared with transformers (README.md). */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { loadModel, scope, tensor, type CausalLM } from "../../src/index.js";
import { session } from "../../src/native/binding.js";
import { recordOps, type Tensor } from "../../src/tensor/tensor.js";
import { chiSquareScore } from "../chi-square.js";
import { testDevices, type TestDevice } from "../devices.js";
import { goldenModel, words } from "../hashed.js";
import { goldens } from "./goldens.js";

interface Text {
  prompt: number[];
  repetitionPenalty: number;
  tokens: number[];
}
interface Kept {
  options: Partial<Record<"temperature" | "topK" | "topP" | "minP" | "repetitionPenalty", number>>;
  probabilities: number[];
}
const golden = JSON.parse(readFileSync(join(goldens, "generation.json"), "utf8")) as {
  greedy: Record<string, Text[]>;
  kept: Kept[];
};

async function alone(model: CausalLM, { prompt, repetitionPenalty, tokens }: Text): Promise<number[]> {
  const list: number[] = [];
  const options = { repetitionPenalty, maxNewTokens: Math.max(tokens.length, 1) + 1 };
  for await (const { token } of model.generate(Int32Array.from(prompt), options)) list.push(token);
  return list;
}

for (const device of testDevices()) {
  for (const [name, texts] of Object.entries(golden.greedy)) {
    test.serial(`${name} on ${device}: greedy tokens are transformers', alone and in a batch`, async (t) => {
      const folder = name === "gpt2" ? join(goldens, "families", name) : join(goldens, name);
      const model = await loadModel<"causal-lm">(goldenModel(folder), { device });
      const most = Math.max(...texts.map(({ tokens }) => tokens.length));
      for (const text of texts)
        t.deepEqual((await alone(model, text)).slice(0, text.tokens.length), text.tokens);
      for (const repetitionPenalty of new Set(texts.map((text) => text.repetitionPenalty))) {
        const own = texts.filter((text) => text.repetitionPenalty === repetitionPenalty);
        const prompts = own.map(({ prompt }) => Int32Array.from(prompt));
        const lists: number[][] = own.map(() => []);
        for await (const pieces of model.generateBatch(prompts, {
          repetitionPenalty,
          maxNewTokens: most,
        })) {
          t.is(pieces.length, own.length);
          for (const [row, piece] of pieces.entries()) if (piece !== null) lists[row]?.push(piece.token);
        }
        t.deepEqual(
          lists,
          own.map(({ tokens }) => tokens),
        );
      }
      model.dispose();
    });
  }

  test.serial(`on ${device}: draws follow the distribution after transformers' processors`, async (t) => {
    for (const { options, probabilities } of golden.kept) {
      const counts = await drawn(device, options, 4000);
      const what = JSON.stringify(options);
      t.deepEqual(
        counts.filter((count, token) => count > 0 && probabilities[token] === 0),
        [],
        `${what}: a token that the filters exclude was drawn`,
      );
      // The 99th percentile of the normal distribution.
      const score = chiSquareScore(counts, probabilities);
      t.true(score < 2.326, `${what}: a deviation of ${score}`);
    }
    // The test is sensitive enough: it distinguishes temperatures that differ by a tenth.
    const [{ probabilities }] = golden.kept as [Kept];
    t.true(chiSquareScore(await drawn(device, { temperature: 1.1 }, 4000), probabilities) > 2.326);
  });
}

/** Returns how often each token is drawn from the golden's logits, over `count` seeds. */
async function drawn(device: TestDevice, options: Kept["options"], count: number): Promise<number[]> {
  const row = Float32Array.from(words("generation/logits", 97), (word) => ((word >>> 8) / 2 ** 24 - 0.5) * 8);
  const all = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, ...options };
  const tokens = scope(() => {
    const logits = tensor(
      Float32Array.from({ length: 97 * count }, (_, i) => row[i % 97] as number),
      {
        shape: [count, 97],
        device,
      },
    );
    const marks = Int32Array.from({ length: 97 * count }, (_, i) => (i % 97 < 20 ? 1 : 0));
    const seen = tensor(marks, { shape: [count, 97], device });
    const { temperature, topK, topP, minP, repetitionPenalty } = all;
    const rows = Array.from({ length: count }, (_, i) => [
      i,
      0,
      temperature,
      topK,
      topP,
      minP,
      repetitionPenalty,
    ]);
    const penalised = all.repetitionPenalty === 1 ? undefined : seen.id;
    const [token] = recordOps(() =>
      session().sample(logits.id, penalised, Float64Array.from(rows.flat())),
    ) as [Tensor, Tensor];
    return token;
  });
  const counts = Array.from({ length: 97 }, () => 0);
  for (const token of (await tokens.data()) as Int32Array) counts[token] = (counts[token] as number) + 1;
  tokens.dispose();
  return counts;
}
