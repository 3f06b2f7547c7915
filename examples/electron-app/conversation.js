// The model of the chat, without and with an adapter: both answers are generated in one batch.
import { loadModel, lora } from "lowrank";

const ADAPTER = "after";

export class Conversation {
  #model;
  /** The loaded model, and the loaded adapter's file. */
  #loaded = {};
  #aborting;
  /** The answer in progress; the next question waits for it. */
  #turn = Promise.resolve();

  /**
   * Continues conversations, each a list of messages: the first without the adapter, a second one with it. `tell` receives
   * the answers so far. A model without a chat template continues the text of the last message.
   */
  say({ model: path, adapter, messages }, tell) {
    return this.#inTurn(async () => {
      await this.#load(path, adapter);
      const model = this.#model;
      const template = model.tokenizer.chatTemplate;
      const prompts = messages.map((each) => (template === undefined ? each.at(-1).content : each));
      this.#aborting = new AbortController();
      const texts = prompts.map(() => "");
      try {
        for await (const pieces of model.generateBatch(prompts, {
          adapterPerRow: [null, ADAPTER].slice(0, prompts.length),
          maxNewTokens: template === undefined ? 96 : 512,
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

  /** Stops the answer in progress. */
  interrupt() {
    this.#aborting?.abort();
  }

  /** Frees the model's memory. */
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
