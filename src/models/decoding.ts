/** The tokens that a model chooses after a prompt, over a cache of keys and values. */
import { tensor } from "../create.js";
import { throwIfAborted } from "../errors.js";
import { evaluating, noGrad, scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import type { KeyValueCache } from "./cache.js";
import type { CausalLM } from "./causal-lm.js";
import { notFinite, type Sampler } from "./sampler.js";

/** At most `count` tokens after `ids`. */
export async function* tokensAfter(
  model: CausalLM,
  ids: Int32Array,
  count: number,
  sampler: Sampler,
  signal: AbortSignal | undefined,
): AsyncGenerator<number, void, void> {
  const cache = model.newCache(1, ids.length + count);
  // Ids that the device chose are not checked against the embedding's rows.
  const ahead = sampler.greedy && model.lm_head.outFeatures <= model.inputEmbedding().numEmbeddings;
  try {
    yield* ahead
      ? greedy(model, cache, ids, count, signal)
      : sampled(model, cache, ids, count, sampler, signal);
  } finally {
    cache.dispose();
  }
}

async function* sampled(
  model: CausalLM,
  cache: KeyValueCache,
  ids: Int32Array,
  count: number,
  sampler: Sampler,
  signal: AbortSignal | undefined,
): AsyncGenerator<number, void, void> {
  let next = ids;
  for (let made = 0; made < count; made++) {
    throwIfAborted(signal);
    const logits = recorded(() => lastLogits(model, cache, given(model, next)));
    let token: number;
    try {
      token = sampler.next((await logits.data()) as Float32Array);
    } finally {
      logits.dispose();
    }
    yield token;
    next = Int32Array.of(token);
  }
}

/**
 * The device chooses and goes on with what it chose: the token after next is recorded while the next is computed, so
 * that it never waits for the host. A token that nobody asks for any more is computed for nothing.
 */
async function* greedy(
  model: CausalLM,
  cache: KeyValueCache,
  ids: Int32Array,
  count: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<number, void, void> {
  let [pending, following]: (Choice | undefined)[] = [];
  try {
    for (let made = 0; made < count; made++) {
      throwIfAborted(signal);
      pending = following ?? new Choice(model, cache, ids);
      const next: Tensor | undefined = pending.token;
      following = next && made + 1 < count ? new Choice(model, cache, next) : undefined;
      const token = await pending.chosen;
      pending.dispose();
      yield token;
    }
  } finally {
    pending?.dispose();
    following?.dispose();
  }
}

/** The likeliest token after `ids`. */
class Choice {
  /** i32 [1, 1]; none where recording failed. */
  readonly token: Tensor | undefined;
  /** Rejects where recording failed, or a logit is NaN. */
  readonly chosen: Promise<number>;

  constructor(model: CausalLM, cache: KeyValueCache, ids: Int32Array | Tensor) {
    try {
      const [token, logit] = recorded(() => {
        const logits = lastLogits(model, cache, ids instanceof Int32Array ? given(model, ids) : ids);
        const rows = logits.reshape(1, -1);
        const index = rows.argmax(1, { keepDim: true });
        return [index, rows.gather(1, index)];
      }) as [Tensor, Tensor];
      this.token = token;
      this.chosen = read(token, logit);
    } catch (error) {
      this.chosen = Promise.reject(error as Error);
    }
    // What is recorded and then not asked for fails where nobody hears it.
    this.chosen.catch(() => undefined);
  }

  dispose(): void {
    this.token?.dispose();
  }
}

async function read(token: Tensor, logit: Tensor): Promise<number> {
  const values = Promise.all([token.data(), logit.data()]);
  logit.dispose();
  const [[index], [largest]] = (await values) as [Int32Array, Float32Array];
  if (Number.isNaN(largest)) throw notFinite(index as number);
  return index as number;
}

function given(model: CausalLM, ids: Int32Array): Tensor {
  return tensor(ids, { shape: [1, ids.length], device: model.device });
}

/** Logits [1, 1, V] of the token after `ids`, which are appended to the cache and let go of. */
function lastLogits(model: CausalLM, cache: KeyValueCache, ids: Tensor): Tensor {
  const hidden = model.hidden(ids, {}, cache);
  return model.lm_head.forward(hidden.slice(1, (ids.shape[1] as number) - 1));
}

function recorded<T>(record: () => T): T {
  return evaluating(() => noGrad(() => scope(record)));
}
