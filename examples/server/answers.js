// Answers requests over one base model: waiting requests form one batch in which each row uses its user's adapter.
import { loadModel, lora } from "lowrank";

/** The maximum rows of a batch, and tokens of an answer. */
const ROWS = 16;
const TOKENS = 32;

export class Answers {
  #model;
  #waiting = [];
  /** The model's current task; the next one waits for it. */
  #turn = Promise.resolve();

  static async over(source) {
    const answers = new Answers();
    answers.#model = await loadModel(source, { task: "causal-lm" });
    return answers;
  }

  /** Loads a user's adapter from a folder, replacing an earlier one. */
  use(user, folder) {
    return this.#inTurn(() =>
      lora.adapters(this.#model).includes(user)
        ? lora.hotSwap(this.#model, folder, { name: user })
        : lora.loadAdapter(this.#model, folder, { name: user }),
    );
  }

  /** Generates a continuation of `prompt`, with the user's adapter if there is one. */
  ask(user, prompt) {
    const room = this.#model.config.maxPositionEmbeddings - TOKENS;
    const { length } = this.#model.tokenizer.encode(prompt);
    if (length === 0 || length > room)
      return Promise.reject(new RangeError(`a prompt has 1 to ${room} tokens; this one has ${length}`));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ user, prompt, resolve, reject });
      // Requests that arrive while a batch runs join the next one.
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
