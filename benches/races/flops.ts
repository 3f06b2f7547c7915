/** The minimum arithmetic of a step; a multiplication and an addition are two operations. */

import { SHAPES } from "./shapes.js";

export interface StepShape {
  rows: number;
  length: number;
  shape?: keyof typeof SHAPES;
  layers?: number;
  rank?: number;
}

/**
 * A LoRA step with adapters on all seven linears of a block and frozen weights:
 * - each frozen weight once in forward and once for the gradient of its input, except the first block's query, key and value projections, whose
 *   input needs no gradient; lm_head only for rows that have a label;
 * - each adapter: two products in forward, four in backward;
 * - attention, where a token sees half of the row on average: two products in forward, four in backward.
 */
export function stepFlops({ rows, length, shape = "smollm2-135m", rank = 16, ...given }: StepShape): number {
  const { width, inner, heads, keyHeads, vocabulary } = SHAPES[shape];
  const [layers, keys] = [given.layers ?? SHAPES[shape].layers, (width / heads) * keyHeads];
  const tokens = rows * length;
  const entering = width * (width + 2 * keys);
  const block = entering + width * width + 3 * width * inner;
  const frozen = 4 * tokens * block * layers - 2 * tokens * entering;
  const head = 4 * rows * (length - 1) * width * vocabulary;
  const sides = 2 * (width + width) + 2 * (width + keys) + 3 * (width + inner);
  const adapters = 6 * tokens * rank * sides * layers;
  const attention = 6 * tokens * (length + 1) * width * layers;
  return frozen + head + adapters + attention;
}
