/** Where ranks go: to the directions that explain most of what goes into their layers. */

/** A layer that is started from its inputs. */
export interface Asked {
  path: string;
  /** The layer whose inputs it shares, the first that has them; its own path where it is that. */
  inputsOf: string;
  r: number;
}

/**
 * Ranks by layer: the whole rank goes to the directions with the largest shares of variance, over
 * all layers. Ties go to who comes first, and layers whose inputs are another's come last: so among
 * layers of equal inputs that other has the most.
 * Source: PEFT's _get_rank_distribution.
 */
export function ranksOf(
  layers: readonly Asked[],
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

/** As Python rounds: halves go to the even number. */
export function halfToEven(value: number): number {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
