/** The run without options: samples of the embedded model before and after training, and its compression rate. */
import { readFile } from "node:fs/promises";
import { locateDefaultHeldOut, locateDefaultModel } from "../../models/default.js";
import { LowrankError } from "../../errors.js";
import { runInterruptible } from "../terminal/interrupt.js";
import { loadLanguageModel } from "../options/models.js";

const PROMPT = "The captain";
const TOKENS = 60;

export interface Sample {
  /** The prompt and its continuation, as one line. */
  text: string;
  /** Tokens per byte of the held-out text, which converts a loss per token to bits per byte. */
  tokensPerByte: number;
}

/** Generates a sample with the embedded model, with or without an adapter. */
export function readSample(device: string, adapter?: string): Promise<Sample> {
  return runInterruptible(async (signal) => {
    const adapters = adapter === undefined ? [] : [adapter];
    const { model, name } = await loadLanguageModel({
      model: locateDefaultModel(),
      adapters,
      device,
      signal,
    });
    try {
      if (model.tokenizer === undefined)
        throw new LowrankError("ERR_FILE_NOT_FOUND", `${name}: no tokenizer.json`);
      let text = PROMPT;
      const options = { maxNewTokens: TOKENS, temperature: 0.7, seed: 0, signal };
      for await (const piece of model.generate(PROMPT, options)) text += piece.text;
      const heldOut = await readFile(locateDefaultHeldOut(), "utf8");
      const tokens = model.tokenizer.encode(heldOut, { addSpecialTokens: false }).length;
      const tokensPerByte = tokens / Buffer.byteLength(heldOut);
      return { text: text.trim().replaceAll(/\s+/g, " "), tokensPerByte };
    } finally {
      model.dispose();
    }
  });
}

/** Converts nats per token to bits per byte. */
export function computeBitsPerByte(loss: number, { tokensPerByte }: Sample): number {
  return (loss / Math.LN2) * tokensPerByte;
}
