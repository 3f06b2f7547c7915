/** The run that needs no options: what the embedded model writes before and after, and how well it predicts. */
import { readFile } from "node:fs/promises";
import { defaultHeldOut, defaultModel } from "../../models/default.js";
import { LowrankError } from "../../errors.js";
import { interruptible } from "../interrupt.js";
import { loadLanguageModel } from "../models.js";

const PROMPT = "The captain";
const TOKENS = 60;

export interface Sample {
  /** The prompt and what follows, as one line. */
  text: string;
  /** Tokens to a byte of the held-out text: what turns a loss a token into bits a byte. */
  tokensPerByte: number;
}

/** Lets the embedded model write, with an adapter or without. */
export function sampleOf(device: string, adapter?: string): Promise<Sample> {
  return interruptible(async (signal) => {
    const adapters = adapter === undefined ? [] : [adapter];
    const { model, name } = await loadLanguageModel({ model: defaultModel(), adapters, device, signal });
    try {
      if (model.tokenizer === undefined)
        throw new LowrankError("ERR_FILE_NOT_FOUND", `${name}: no tokenizer.json`);
      let text = PROMPT;
      const options = { maxNewTokens: TOKENS, temperature: 0.7, seed: 0, signal };
      for await (const piece of model.generate(PROMPT, options)) text += piece.text;
      const heldOut = await readFile(defaultHeldOut(), "utf8");
      const tokens = model.tokenizer.encode(heldOut, { addSpecialTokens: false }).length;
      const tokensPerByte = tokens / Buffer.byteLength(heldOut);
      return { text: text.trim().replaceAll(/\s+/g, " "), tokensPerByte };
    } finally {
      model.dispose();
    }
  });
}

/** Nats a token as bits a byte. */
export function bitsPerByte(loss: number, { tokensPerByte }: Sample): number {
  return (loss / Math.LN2) * tokensPerByte;
}
