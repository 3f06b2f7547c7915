/** EVA's distribution of ranks over layers, by explained variance. */

/** A layer to be initialised from its inputs. */
export interface EvaLayer {
  path: string;
  /** The first layer with the same inputs; may be this layer. */
  inputsOf: string;
  r: number;
}

/**
 * Returns ranks by layer: the total rank goes to the directions with the largest explained variance over all layers. On
 * ties earlier layers win, and layers that share another layer's inputs come last, so the layer that they share with gets
 * the largest rank. Source: PEFT's _get_rank_distribution.
 */
export function distributeRanks(
  layers: readonly EvaLayer[],
  ratios: ReadonlyMap<string, Float64Array>,
): Map<string, number> {
  const first = layers.filter(({ path, inputsOf }) => path === inputsOf);
  const order = [...first, ...layers.filter(({ path, inputsOf }) => path !== inputsOf)];
  const shares = order.flatMap(({ path, inputsOf }) =>
    Array.from(ratios.get(inputsOf) as Float64Array, (share) => ({ path, share })),
  );
  shares.sort((a, b) => b.share - a.share);
  const ranks = new Map(layers.map(({ path }) => [path, 0]));
  const budget = layers.reduce((n, { r }) => n + r, 0);
  for (const { path } of shares.slice(0, budget)) ranks.set(path, (ranks.get(path) as number) + 1);
  return ranks;
}

/** Rounds like Python: halves to even. */
export function roundHalfToEven(value: number): number {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
