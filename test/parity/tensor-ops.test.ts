/**
 * Operations on tensors compared with PyTorch in float64 (README.md): outputs, and the gradients of the inputs.
 * Sums have some hundred terms at most, so 1e-5 of the largest value is a hundred roundings; a wrong index or
 * formula causes an error above a hundredth. i32 values, and the positions of NaN and infinities, must be equal.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test, { type ExecutionContext } from "ava";
import { einsum, scope, tensor, type Tensor } from "../../src/index.js";
import { testDevices } from "../devices.js";
import { error, goldens, onHost, type Golden } from "./goldens.js";

interface Case {
  method: string;
  args: unknown[];
  inputs: string[];
  outputs: number;
}

const { cases } = JSON.parse(readFileSync(join(goldens, "tensor_ops.json"), "utf8")) as {
  cases: Record<string, Case>;
};

/** Returns an argument with the inputs that it names ("$y"), also among options. JSON has no infinity. */
function revived(value: unknown, inputs: Record<string, Tensor>): unknown {
  if (typeof value === "string" && value.startsWith("$")) return inputs[value.slice(1)];
  if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
  const ends: Record<string, number> = { inf: Infinity, "-inf": -Infinity };
  return Object.fromEntries(
    Object.entries(value).map(([k, v]) => [
      k,
      k === "p" && typeof v === "string" ? ends[v] : revived(v, inputs),
    ]),
  );
}

function outputsOf(result: unknown): Tensor[] {
  if (Array.isArray(result)) return result as Tensor[];
  const { values, indices } = result as { values?: Tensor; indices?: Tensor };
  return values !== undefined && indices !== undefined ? [values, indices] : [result as Tensor];
}

async function held(t: ExecutionContext, what: string, ours: Tensor, golden: Golden): Promise<void> {
  t.deepEqual(ours.shape, golden.shape, what);
  const values = await ours.data();
  t.is(values.constructor, golden.data.constructor, what);
  if (golden.data instanceof Int32Array) {
    t.deepEqual([...values], [...golden.data], what);
    return;
  }
  const special = (list: ArrayLike<number>): string[] =>
    Array.from(list, (v) => (Number.isFinite(v) ? "" : String(v)));
  t.deepEqual(special(values), special(golden.data), what);
  const finite = (list: ArrayLike<number>): number[] =>
    Array.from(list).filter((_, i) => Number.isFinite(golden.data[i]));
  const off = error(finite(values), finite(golden.data));
  t.true(off <= 1e-5, `${what}: ${off}`);
}

for (const device of testDevices()) {
  test.serial(`on ${device} operations are PyTorch's`, async (t) => {
    const host = await onHost(join(goldens, "tensor_ops.safetensors"));
    for (const [name, { method, args, inputs, outputs }] of Object.entries(cases)) {
      await scope(async () => {
        const of = (part: string, requiresGrad = false): Tensor => {
          const { data, shape } = host[`${name}.${part}`] as Golden;
          return tensor(data, { shape, device, requiresGrad });
        };
        const made = Object.fromEntries(
          inputs.map((key) => [key, of(key, host[`${name}.grad.${key}`] !== undefined)]),
        );
        const given = args.map((a) => revived(a, made));
        const x = made["x"] as unknown as Record<string, (...args: unknown[]) => unknown>;
        const result =
          method === "einsum"
            ? einsum(given[0] as string, ...(given.slice(1) as Tensor[]))
            : (x[method] as (...args: unknown[]) => unknown).apply(x, given);
        const ys = outputsOf(result);
        t.is(ys.length, outputs, name);
        for (const [i, y] of ys.entries())
          await held(t, `${name}: output ${i}`, y, host[`${name}.out${i}`] as Golden);
        const asks = inputs.filter((key) => host[`${name}.grad.${key}`] !== undefined);
        if (asks.length === 0) return;
        t.notThrows(() => {
          const losses = ys.flatMap((y, i) =>
            host[`${name}.d${i}`] === undefined ? [] : [y.mul(of(`d${i}`)).sum()],
          );
          losses.reduce((a, b) => a.add(b)).backward();
        }, name);
        for (const key of asks) {
          const { grad } = made[key] as Tensor;
          if (grad === null) t.fail(`${name}: no gradient of ${key}`);
          else await held(t, `${name}: gradient of ${key}`, grad, host[`${name}.grad.${key}`] as Golden);
        }
      });
    }
  });
}
