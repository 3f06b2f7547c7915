// Answers over one base: whatever waits is one batch, each row of which counts the adapter of its user.
import { loadModel, lora } from "lowrank";

/** Rows of a batch, and tokens of an answer, at most. */
const ROWS = 16;
const TOKENS = 32;

export class Answers {
  #model;
  #waiting = [];
  /** What the model does now; the next thing waits for it. */
  #turn = Promise.resolve();

  static async over(source) {
    const answers = new Answers();
    answers.#model = await loadModel(source, { task: "causal-lm" });
    return answers;
  }

  /** Takes a user's adapter from a folder, in place of the one before. */
  use(user, folder) {
    return this.#inTurn(() =>
      lora.adapters(this.#model).includes(user)
        ? lora.hotSwap(this.#model, folder, { name: user })
        : lora.loadAdapter(this.#model, folder, { name: user }),
    );
  }

  /** What the model says behind `prompt`, with the user's adapter where there is one. */
  ask(user, prompt) {
    const room = this.#model.config.maxPositionEmbeddings - TOKENS;
    const { length } = this.#model.tokenizer.encode(prompt);
    if (length === 0 || length > room)
      return Promise.reject(new RangeError(`a prompt has 1 to ${room} tokens; this one has ${length}`));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ user, prompt, resolve, reject });
      // Who comes while a batch runs is in the next.
      if (this.#waiting.length === 1) void this.#inTurn(() => this.#answer());
    });
  }

  async #answer() {
    const batch = this.#waiting.splice(0, ROWS);
    if (this.#waiting.length > 0) void this.#inTurn(() => this.#answer());
    const known = lora.adapters(this.#model);
    const adapterPerRow = batch.map(({ user }) => (known.includes(user) ? user : null));
    const texts = batch.map(() => "");
    try {
      const prompts = batch.map(({ prompt }) => prompt);
      for await (const pieces of this.#model.generateBatch(prompts, { adapterPerRow, maxNewTokens: TOKENS }))
        for (const [row, piece] of pieces.entries()) texts[row] += piece?.text ?? "";
      for (const [row, { resolve }] of batch.entries())
        resolve({ text: texts[row], adapter: adapterPerRow[row], rows: batch.length });
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }

  #inTurn(work) {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {});
    return done;
  }
}
