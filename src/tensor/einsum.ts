/** Einstein summation by permutations and batched matrix products. */
import { checkText } from "../arguments/check.js";
import { LowrankError } from "../errors.js";
import { scope } from "./scope.js";
import type { Tensor } from "./tensor.js";
import { formatShape, checkTensor } from "./arguments.js";

/** A tensor with unique names of its dimensions. */
interface NamedTensor {
  tensor: Tensor;
  names: string[];
}

/**
 * Computes the sum of products described by `spec` (Einstein's convention), as `torch.einsum`. `spec` has one term of
 * letters per tensor, with one letter per dimension, and after `->` the letters of the result. A letter missing in the
 * result is summed over; a letter repeated in a term takes the diagonal; `...` stands for dimensions that broadcast.
 * Without `->` the result has the dimensions of `...`, then the letters that occur once, in alphabetical order.
 *
 * Tensors are multiplied from left to right, each pair as one batched matrix product; letters that no later term uses
 * are summed over as soon as possible. Throws `ERR_OPTION` for a spec that does not fit, `ERR_SHAPE_MISMATCH` where a
 * letter has different sizes.
 *
 * @example einsum("bhid,bhjd->bhij", q, k)
 */
export function einsum(spec: string, ...tensors: Tensor[]): Tensor {
  const operands = tensors.map((t, i) => checkTensor("einsum", `tensors[${i}]`, t));
  const { terms, result } = parseSpec(checkText("einsum", "spec", spec), operands);
  return scope(() => {
    const sizes = new Map<string, number>();
    const named = operands.map((t, i) => takeDiagonal({ tensor: t, names: terms[i] as string[] }, spec));
    for (const { tensor, names } of named) {
      names.forEach((name, d) => recordSize(spec, sizes, name, tensor.shape[d] as number));
    }
    let [sofar, ...rest] = named as [NamedTensor, ...NamedTensor[]];
    while (true) {
      const needed = new Set([...result, ...rest.flatMap((r) => r.names)]);
      const [next, ...later] = rest;
      if (next === undefined) break;
      const after = new Set([...result, ...later.flatMap((r) => r.names)]);
      const alone = new Set([...after, ...sofar.names]);
      sofar = multiplyNamed(sumOver(sofar, needed), sumOver(next, alone), after);
      rest = later;
    }
    const { tensor, names } = sumOver(sofar, new Set(result));
    const permuted = names.length > 1 ? tensor.permute(result.map((name) => names.indexOf(name))) : tensor;
    // The result has every named dimension, also dimensions of size 1.
    return permuted.reshape(result.map((name) => sizes.get(name) as number));
  });
}

function refuseSpec(spec: string, why: string): never {
  throw new LowrankError("ERR_OPTION", `einsum: "${spec}": ${why}`);
}

/** Returns the names of each term and of the result; dimensions of `...` are named by digits, counted from the last. */
function parseSpec(spec: string, operands: readonly Tensor[]): { terms: string[][]; result: string[] } {
  const [left, right, ...surplus] = spec.replaceAll(" ", "").split("->");
  if (surplus.length > 0) refuseSpec(spec, "there is more than one ->");
  const parts = (left as string).split(",");
  if (parts.length !== operands.length || operands.length === 0) {
    refuseSpec(spec, `there are ${parts.length} terms for ${operands.length} tensors`);
  }
  let most = 0;
  const terms = parts.map((part, i) => {
    const { shape } = operands[i] as Tensor;
    const letters = part.replace("...", "");
    if (!/^[A-Za-z]*$/.test(letters)) refuseSpec(spec, `"${part}" is not a term of letters and ...`);
    const broadcast = shape.length - letters.length;
    if (broadcast < 0 || (broadcast > 0 && letters === part)) {
      refuseSpec(
        spec,
        `"${part}" names ${letters.length} of the ${shape.length} dimensions of ${formatShape(shape)}`,
      );
    }
    if (letters !== part) most = Math.max(most, broadcast);
    return expandEllipsis(part, broadcast);
  });
  if (right === undefined) {
    const counts = new Map<string, number>();
    for (const name of terms.flat()) counts.set(name, (counts.get(name) ?? 0) + 1);
    const once = [...counts.keys()].filter((name) => counts.get(name) === 1 && /[A-Za-z]/.test(name)).sort();
    return { terms, result: [...nameEllipsis(most), ...once] };
  }
  const letters = right.replace("...", "");
  if (!/^[A-Za-z]*$/.test(letters)) refuseSpec(spec, `"${right}" is not a term of letters and ...`);
  const result = expandEllipsis(right, most);
  const twice = result.find((name, i) => result.indexOf(name) !== i);
  if (twice !== undefined) refuseSpec(spec, `the result names ${twice} twice`);
  const unknown = result.find((name) => !terms.some((term) => term.includes(name)));
  if (unknown !== undefined) refuseSpec(spec, `the result names ${unknown}, which no term does`);
  return { terms, result };
}

function nameEllipsis(count: number): string[] {
  return Array.from({ length: count }, (_, i) => String(count - 1 - i));
}

function expandEllipsis(part: string, broadcast: number): string[] {
  const index = part.indexOf("...");
  return index < 0
    ? [...part]
    : [...part.slice(0, index), ...nameEllipsis(broadcast), ...part.slice(index + 3)];
}

/** Records the size of a name: 1 broadcasts, also for letters, as in PyTorch. */
function recordSize(spec: string, sizes: Map<string, number>, name: string, size: number): void {
  const known = sizes.get(name);
  if (known === undefined || known === 1) sizes.set(name, size);
  else if (size !== 1 && size !== known) {
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `einsum: "${spec}": ${/\d/.test(name) ? "..." : name} has sizes ${known} and ${size}`,
    );
  }
}

/** Makes names unique by taking the diagonal of a repeated one. */
function takeDiagonal({ tensor, names }: NamedTensor, spec: string): NamedTensor {
  const twice = names.findIndex((name, d) => names.indexOf(name) !== d);
  if (twice < 0) return { tensor, names };
  const first = names.indexOf(names[twice] as string);
  const n = tensor.shape[first] as number;
  if (n !== tensor.shape[twice]) {
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `einsum: "${spec}": ${names[twice]} has sizes ${n} and ${tensor.shape[twice]}`,
    );
  }
  const others = names.map((_, d) => d).filter((d) => d !== first && d !== twice);
  const shape = others.map((d) => tensor.shape[d] as number);
  // The diagonal of [n, n] is every (n + 1)-th element: the first column of [n, n + 1] after padding.
  const columns = shape.reduce((a, b) => a * b, 1);
  const flat = tensor.permute([first, twice, ...others]).reshape(n * n, columns);
  const diagonal =
    n === 0
      ? flat
      : flat
          .pad([0, 0, 0, n])
          .reshape(n, n + 1, columns)
          .slice(1, 0, 1);
  return takeDiagonal(
    {
      tensor: diagonal.reshape([n, ...shape]),
      names: [names[first] as string, ...others.map((d) => names[d] as string)],
    },
    spec,
  );
}

/** Sums over names that are not in `retained`. */
function sumOver({ tensor, names }: NamedTensor, retained: ReadonlySet<string>): NamedTensor {
  const over = names.map((_, d) => d).filter((d) => !retained.has(names[d] as string));
  if (over.length === 0) return { tensor, names };
  return { tensor: tensor.sum(over), names: names.filter((name) => retained.has(name)) };
}

/** Multiplies two operands, and sums over their common names that are not in `after`. */
function multiplyNamed(a: NamedTensor, b: NamedTensor, after: ReadonlySet<string>): NamedTensor {
  const readSize = (operand: NamedTensor, name: string): number =>
    operand.tensor.shape[operand.names.indexOf(name)] as number;
  const shared = a.names.filter((name) => b.names.includes(name));
  // A size of 1 against another size only scales, so it broadcasts as a batch dimension.
  const inner = shared.filter((name) => !after.has(name) && readSize(a, name) === readSize(b, name));
  const batch = shared.filter((name) => !inner.includes(name));
  const [rows, columns] = [
    a.names.filter((n) => !shared.includes(n)),
    b.names.filter((n) => !shared.includes(n)),
  ];
  const layOut = (operand: NamedTensor, order: string[][]): Tensor => {
    const places = order.flat().map((name) => operand.names.indexOf(name));
    const sizes = order.slice(1).map((group) => group.reduce((n, name) => n * readSize(operand, name), 1));
    const ordered = places.length > 1 ? operand.tensor.permute(places) : operand.tensor;
    return ordered.reshape([...batch.map((name) => readSize(operand, name)), ...sizes]);
  };
  const out = layOut(a, [batch, rows, inner]).matmul(layOut(b, [batch, inner, columns]));
  const shape = [
    ...out.shape.slice(0, batch.length),
    ...rows.map((name) => readSize(a, name)),
    ...columns.map((name) => readSize(b, name)),
  ];
  return sumOver({ tensor: out.reshape(shape), names: [...batch, ...rows, ...columns] }, after);
}
