/** A dense layer and its low-rank paths as one operation. */
import { session, type LowRankPath } from "../../native/binding.js";
import { drawStream } from "../../tensor/random.js";
import { isTraining } from "../../tensor/scope.js";
import { recordOp, type Tensor } from "../../tensor/tensor.js";
import type { Adapter } from "./adapter.js";
import { computeBias, type Share } from "./shares.js";

/** The largest number of paths that the operation takes. */
const MOST_PATHS = 14;

/** The fields of a layer that the operation needs. */
interface Dense {
  readonly training: boolean;
  readonly fanInFanOut: boolean;
  listWindows(adapter: Adapter): readonly number[];
}

/**
 * Returns x·Wᵀ + b + Σ s·drop(x)·Aᵀ·Bᵀ, each share over its rows and output windows. Adapters over all rows and outputs
 * without dropout are concatenated along the rank into one path, with the scaling multiplied into B.
 */
export function multiplyWithAdapters(
  layer: Dense,
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  shares: readonly Share[],
): Tensor {
  if (shares.length > MOST_PATHS && shares.some(({ runs }) => runs))
    return multiplyInParts(layer, x, weight, bias, shares);
  const hasDropout = ({ loraDropout }: Adapter): boolean => loraDropout > 0 && isTraining(layer);
  const plain = shares.filter(
    ({ adapter, runs }) => !runs && !hasDropout(adapter) && layer.listWindows(adapter).length === 0,
  );
  const combined = plain.length > 1 ? [combineShares(plain)] : [];
  const rest = combined.length > 0 ? shares.filter((share) => !plain.includes(share)) : shares;
  const paths = [...combined, ...rest].map(({ adapter, scaling, runs = [], generator }): LowRankPath => {
    const p = hasDropout(adapter) ? adapter.loraDropout : 0;
    // Advances the random stream only with dropout.
    const draw = (): [number, number] => (p > 0 ? drawStream(generator) : [0, 0]);
    const [seed, stream] = draw();
    return {
      loraA: adapter.loraA.id,
      loraB: adapter.loraB.id,
      scale: scaling,
      p,
      seed,
      stream,
      runs: runs.flatMap(({ start, count }, i) => [start, count, i === 0 ? stream : draw()[1]]),
      windows: [...layer.listWindows(adapter)],
    };
  });
  const totalBias = computeBias(bias, shares);
  return recordOp(() => session().loraLinear(x.id, weight.id, totalBias?.id, layer.fanInFanOut, paths));
}

/** Concatenates adapters along the rank into one. */
function combineShares(shares: readonly Share[]): Share {
  const [firstA, ...restA] = shares.map((s) => s.adapter.loraA) as [Tensor, ...Tensor[]];
  const [firstB, ...restB] = shares.map((s) => s.adapter.loraB.mul(s.scaling)) as [Tensor, ...Tensor[]];
  const loraA = firstA.concat(restA, 0);
  const r = loraA.shape[0] as number;
  const adapter = { r, loraAlpha: r, scaling: 1, loraDropout: 0, loraA, loraB: firstB.concat(restB, 1) };
  return { adapter, scaling: 1 };
}

/** Splits the rows in half, recursively, until each half needs few enough paths. */
function multiplyInParts(
  layer: Dense,
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  shares: readonly Share[],
): Tensor {
  const features = x.shape.at(-1) as number;
  const rows = x.size / features;
  const starts = shares.flatMap(({ runs = [] }) => runs.map(({ start }) => start)).sort((a, b) => a - b);
  const middle = starts[Math.floor(starts.length / 2)] as number;
  const flat = x.reshape(rows, features);
  const parts = [
    [0, middle],
    [middle, rows],
  ].map(([from, to]) => {
    const partShares = shares.flatMap((share) => {
      const runs = (share.runs ?? [])
        .filter(({ start, count }) => start < (to as number) && start + count > (from as number))
        .map(({ start, count }) => ({ start: start - (from as number), count }));
      return runs.length === 0 ? [] : [{ ...share, runs }];
    });
    return multiplyWithAdapters(layer, flat.slice(0, from as number, to as number), weight, bias, partShares);
  });
  const y = (parts[0] as Tensor).concat(parts[1] as Tensor, 0);
  return y.reshape(...x.shape.slice(0, -1), y.shape[1] as number);
}
