// The model that is talked to, as it is and with an adapter: both answers are one batch.
import { loadModel, lora } from "lowrank";

const ADAPTER = "after";

export class Conversation {
  #model;
  /** Which model is loaded, and which adapter's file. */
  #loaded = {};
  #aborting;
  /** What is said now; the next question waits for it. */
  #turn = Promise.resolve();

  /**
   * Goes on with two conversations, `before` without the adapter and `after` with it; `tell` is told pieces of both. What
   * a model without a chat template goes on with is the last message's text.
   */
  say({ model: path, adapter, before, after }, tell) {
    return this.#inTurn(async () => {
      await this.#load(path, adapter);
      const model = this.#model;
      const prompts = [before, after].map((messages) =>
        model.tokenizer.chatTemplate === undefined ? messages.at(-1).content : messages,
      );
      this.#aborting = new AbortController();
      const texts = ["", ""];
      try {
        for await (const pieces of model.generateBatch(prompts, {
          adapterPerRow: [null, adapter === undefined ? null : ADAPTER],
          maxNewTokens: 128,
          signal: this.#aborting.signal,
        })) {
          for (const [row, piece] of pieces.entries()) texts[row] += piece?.text ?? "";
          tell(texts);
        }
      } catch (error) {
        if (!this.#aborting.signal.aborted) throw error;
      }
      return texts.map((text) => text.trim());
    });
  }

  /** Ends what is said now; what was said so far is the answer. */
  interrupt() {
    this.#aborting?.abort();
  }

  /** Gives the model's memory back. */
  release() {
    this.interrupt();
    return this.#inTurn(() => this.#dispose());
  }

  async #load(path, adapter) {
    if (this.#loaded.path !== path) {
      this.#dispose();
      this.#model = await loadModel(path, { task: "causal-lm" });
      this.#loaded = { path };
    }
    if (this.#loaded.adapter === adapter) return;
    if (this.#loaded.adapter !== undefined) lora.deleteAdapter(this.#model, ADAPTER);
    this.#loaded.adapter = undefined;
    if (adapter !== undefined) await lora.loadAdapter(this.#model, adapter, { name: ADAPTER });
    this.#loaded.adapter = adapter;
  }

  #dispose() {
    this.#model?.dispose();
    this.#model = undefined;
    this.#loaded = {};
  }

  #inTurn(work) {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {});
    return done;
  }
}
