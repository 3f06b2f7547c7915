/** The shapes of the models in the races. */

export const VOCABULARY = 49152;

export interface Shape {
  vocabulary: number;
  width: number;
  inner: number;
  layers: number;
  heads: number;
  keyHeads: number;
}

/** The first is the default of the races. */
export const SHAPES = {
  "smollm2-135m": { vocabulary: VOCABULARY, width: 576, inner: 1536, layers: 30, heads: 9, keyHeads: 3 },
  "llama-3.2-1b": { vocabulary: 128256, width: 2048, inner: 8192, layers: 16, heads: 32, keyHeads: 8 },
} satisfies Record<string, Shape>;
