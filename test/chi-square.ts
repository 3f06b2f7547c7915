/** Pearson's chi-square test. */

/**
 * Returns how many standard deviations the statistic of `counts` under `probabilities` is above its mean, by Wilson
 * and Hilferty's cube root, precise to a hundredth for the degrees of freedom here. Cells with an expected count
 * below five are merged.
 */
export function chiSquareScore(counts: readonly number[], probabilities: readonly number[]): number {
  const total = counts.reduce((sum, count) => sum + count, 0);
  const cells = probabilities.map((p, i) => ({ expected: p * total, count: counts[i] as number }));
  const large = cells.filter(({ expected }) => expected >= 5);
  const rest = cells
    .filter(({ expected }) => expected > 0 && expected < 5)
    .reduce((sum, cell) => ({ expected: sum.expected + cell.expected, count: sum.count + cell.count }), {
      expected: 0,
      count: 0,
    });
  const all = rest.expected >= 5 ? [...large, rest] : large;
  const statistic = all.reduce((sum, { expected, count }) => sum + (count - expected) ** 2 / expected, 0);
  const freedom = all.length - 1;
  if (freedom === 0) return 0;
  const spread = 2 / (9 * freedom);
  return ((statistic / freedom) ** (1 / 3) - (1 - spread)) / Math.sqrt(spread);
}
