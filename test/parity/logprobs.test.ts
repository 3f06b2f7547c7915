/** Log-probabilities of generated tokens compared with transformers (logprobs.py), alone and in a batch. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { loadModel, type CausalLM, type Piece } from "../../src/index.js";
import { testDevices } from "../devices.js";
import { goldenModel } from "../hashed.js";
import { goldens } from "./goldens.js";

interface Text {
  prompt: number[];
  repetitionPenalty: number;
  tokens: number[];
  logprobs: number[];
  top: [token: number, logprob: number][][];
}

const golden = JSON.parse(readFileSync(join(goldens, "logprobs.json"), "utf8")) as Record<string, Text[]>;

/** Returns the largest difference of log-probabilities; infinite if tokens differ. */
function difference(pieces: readonly Piece[], { tokens, logprobs, top }: Text): number {
  if (pieces.length !== tokens.length) return Infinity;
  const off = pieces.flatMap(({ token, logprob, topLogprobs }, i) => {
    if (token !== tokens[i] || topLogprobs?.length !== top[i]?.length) return [Infinity];
    const others = topLogprobs!.map((one, k) => {
      const [expected, value] = top[i]![k]!;
      return one.token === expected ? Math.abs(one.logprob - value) : Infinity;
    });
    return [Math.abs(logprob! - logprobs[i]!), ...others];
  });
  return Math.max(...off);
}

for (const device of testDevices()) {
  for (const [name, texts] of Object.entries(golden)) {
    test.serial(
      `${name} on ${device}: log-probabilities are transformers', alone and in a batch`,
      async (t) => {
        const folder = name === "gpt2" ? join(goldens, "families", name) : join(goldens, name);
        const model = (await loadModel(goldenModel(folder), { device })) as CausalLM;
        Object.assign(model.config, { eosTokenIds: [] });
        const options = { maxNewTokens: 8, logprobs: 4 };
        for (const text of texts) {
          const { repetitionPenalty } = text;
          const pieces: Piece[] = [];
          for await (const piece of model.generate(Int32Array.from(text.prompt), {
            ...options,
            repetitionPenalty,
          }))
            pieces.push(piece);
          // Logits are within 1e-5 of the largest, which is below 20.
          const off = difference(pieces, text);
          t.true(off < 2e-4, `log-probabilities are off by ${off}`);
        }
        for (const repetitionPenalty of [1, 1.4]) {
          const own = texts.filter((text) => text.repetitionPenalty === repetitionPenalty);
          const prompts = own.map(({ prompt }) => Int32Array.from(prompt));
          const lists: Piece[][] = own.map(() => []);
          for await (const pieces of model.generateBatch(prompts, { ...options, repetitionPenalty }))
            for (const [row, piece] of pieces.entries()) if (piece !== null) lists[row]!.push(piece);
          const off = Math.max(...own.map((text, row) => difference(lists[row]!, text)));
          t.true(off < 2e-4, `log-probabilities of the batch are off by ${off}`);
        }
        model.dispose();
      },
    );
  }
}
