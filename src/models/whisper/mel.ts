/** Mel filters of Slaney's auditory toolbox: triangles of equal area, linear below 1 kHz and logarithmic above. */

/** Where the scale becomes logarithmic, in hertz and in mels. */
const CORNER = { hertz: 1000, mel: 15 };
const STEP = Math.log(6.4) / 27;

function convertToMel(hertz: number): number {
  return hertz < CORNER.hertz ? (3 * hertz) / 200 : CORNER.mel + Math.log(hertz / CORNER.hertz) / STEP;
}

function convertToHertz(mel: number): number {
  return mel < CORNER.mel ? (200 * mel) / 3 : CORNER.hertz * Math.exp(STEP * (mel - CORNER.mel));
}

/** The weights of a filter, starting at its first bin. */
export interface MelFilter {
  first: number;
  weights: Float64Array;
}

/** Returns `count` filters over `bins` frequencies from 0 to `highest` hertz. */
export function createMelFilters(count: number, bins: number, highest: number): MelFilter[] {
  const top = convertToMel(highest);
  const corners = Array.from({ length: count + 2 }, (_, i) => convertToHertz((top * i) / (count + 1)));
  return Array.from({ length: count }, (_, i) => {
    const [low, middle, high] = corners.slice(i, i + 3) as [number, number, number];
    const all = Float64Array.from({ length: bins }, (_, bin) => {
      const hertz = (highest * bin) / (bins - 1);
      const height = Math.min((hertz - low) / (middle - low), (high - hertz) / (high - middle));
      return (Math.max(0, height) * 2) / (high - low);
    });
    const first = Math.max(
      0,
      all.findIndex((weight) => weight > 0),
    );
    const last = all.findLastIndex((weight) => weight > 0);
    return { first, weights: all.slice(first, last + 1) };
  });
}
