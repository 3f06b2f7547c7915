/** What the embedded model writes, before it was adapted and after. */
import { defaultModel } from "../../models/default.js";
import { interruptible } from "../interrupt.js";
import { load } from "../models.js";

const PROMPT = "The ship";
const TOKENS = 60;

/** Lines that show the likeliest continuation of a fixed prompt. */
export function sampleOf(when: "before" | "after", device: string, adapter?: string): Promise<string> {
  return interruptible(async (signal) => {
    const adapters = adapter === undefined ? [] : [adapter];
    const { model } = await load({ model: defaultModel, adapters, device, signal });
    try {
      let text = PROMPT;
      const pieces = model.generate(PROMPT, { maxNewTokens: TOKENS, temperature: 0.7, seed: 0, signal });
      for await (const piece of pieces) text += piece.text;
      return `\n${when === "before" ? "Before" : "After"} fine-tuning it writes:\n\n  ${text.trim().replaceAll(/\s+/g, " ")}\n\n`;
    } finally {
      model.dispose();
    }
  });
}
