/** The discrete Fourier transform in f64, for lengths with small factors. */

/** Combines `radix` transforms of `span` numbers into one. */
interface Stage {
  radix: number;
  span: number;
  /** Twiddle factors: [span, radix out, radix in]. */
  cos: Float64Array;
  sin: Float64Array;
}

/**
 * An in-place mixed-radix transform of complex numbers (Cooley and Tukey 1965). Stages alternate between two buffers,
 * which avoids reordering (Stockham). A stage of radix p costs size · p complex products.
 */
export class Fourier {
  /** The length of a transform: the product of the radices. */
  readonly size: number;
  readonly #stages: Stage[] = [];
  readonly #spare: [re: Float64Array, im: Float64Array];

  constructor(...radices: number[]) {
    let span = 1;
    for (const radix of radices) {
      this.#stages.push(computeStage(radix, span));
      span *= radix;
    }
    this.size = span;
    this.#spare = [new Float64Array(span), new Float64Array(span)];
  }

  /** Replaces re + i · im by its transform. */
  transform(re: Float64Array, im: Float64Array): void {
    let from: [Float64Array, Float64Array] = [re, im];
    let to = this.#spare;
    for (const stage of this.#stages) {
      runPass(stage, this.size, from, to);
      [from, to] = [to, from];
    }
    if (from[0] === re) return;
    re.set(from[0]);
    im.set(from[1]);
  }
}

/**
 * Computes a stage's twiddle factors: the angle of term j in output k + out · span is j · (k + out · span) / (radix ·
 * span) turns.
 */
function computeStage(radix: number, span: number): Stage {
  const circle = radix * span;
  const angles = Array.from({ length: span * radix * radix }, (_, i) => {
    const [j, out, k] = [i % radix, Math.floor(i / radix) % radix, Math.floor(i / radix ** 2)];
    return (2 * Math.PI * ((j * (k + out * span)) % circle)) / circle;
  });
  return {
    radix,
    span,
    cos: Float64Array.from(angles, Math.cos),
    sin: Float64Array.from(angles, (a) => -Math.sin(a)),
  };
}

function runPass(
  { radix, span, cos, sin }: Stage,
  size: number,
  [re, im]: [Float64Array, Float64Array],
  [outRe, outIm]: [Float64Array, Float64Array],
): void {
  const stride = size / radix;
  for (let source = 0; source < stride; source++) {
    const k = source % span;
    let place = (source - k) * radix + k;
    let turn = k * radix * radix;
    for (let out = 0; out < radix; out++) {
      let sumRe = 0;
      let sumIm = 0;
      for (let index = source; index < size; index += stride) {
        const c = cos[turn] as number;
        const s = sin[turn] as number;
        const x = re[index] as number;
        const y = im[index] as number;
        sumRe += x * c - y * s;
        sumIm += x * s + y * c;
        turn++;
      }
      outRe[place] = sumRe;
      outIm[place] = sumIm;
      place += span;
    }
  }
}
