/**
 * Losses compared with torch.nn.functional in float64 (README.md): the loss, and the gradients of its inputs. An
 * element has some ten roundings, and sums have some hundred terms: 1e-5 of the largest is far above these, and far
 * below any missing term.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { nn, tensor, type Tensor } from "../../src/index.js";
import { testDevices } from "../devices.js";
import { hashed } from "../hashed.js";
import { error, goldens, onHost, type Golden } from "./goldens.js";

type Loss = (a: Tensor, b: Tensor, options: Record<string, unknown>) => Tensor;

interface Case {
  loss: "mseLoss" | "l1Loss" | "huberLoss" | "bceWithLogits" | "klDiv" | "cosineSimilarity";
  inputs: Record<string, number[]>;
  options: Record<string, unknown>;
}

const { losses } = JSON.parse(readFileSync(join(goldens, "nn_losses.json"), "utf8")) as {
  losses: Record<string, Case>;
};

/** Returns probabilities, or their logarithms, for a loss that takes them. */
function made({ loss, options }: Case, key: string, one: Tensor): Tensor {
  if (loss === "bceWithLogits" && key === "target") return one.sigmoid();
  if (loss !== "klDiv") return one;
  return key === "target" && options["logTarget"] !== true ? one.softmax() : one.logSoftmax();
}

for (const device of testDevices()) {
  for (const [name, one] of Object.entries(losses)) {
    test(`${name} on ${device} is PyTorch's`, async (t) => {
      const host = await onHost(join(goldens, "nn_losses.safetensors"));
      const compare = async (part: string, ours: Tensor): Promise<void> => {
        const golden = host[`${name}.${part}`] as Golden;
        t.deepEqual(ours.shape, golden.shape, part);
        const off = error(await ours.data(), golden.data);
        t.true(off <= 1e-5, `${part}: ${off}`);
      };
      const leaves = Object.entries(one.inputs).map(([key, shape]) => {
        const requiresGrad = !key.toLowerCase().endsWith("weight");
        return [key, tensor(hashed(`${name}.${key}`, shape), { shape, device, requiresGrad })] as const;
      });
      const [a, b, ...rest] = leaves.map(([key, leaf]) => [key, made(one, key, leaf)] as const);
      const loss = nn[one.loss] as unknown as Loss;
      const output = loss(a?.[1] as Tensor, b?.[1] as Tensor, {
        ...one.options,
        ...Object.fromEntries(rest),
      });
      await compare("output", output);
      const { shape } = output;
      if (shape.length === 0) output.backward();
      else output.backward(tensor(hashed(`${name}.d_out`, shape), { shape, device }));
      for (const [key, leaf] of leaves) {
        if (leaf.requiresGrad) await compare(`grad.${key}`, leaf.grad as Tensor);
      }
    });
  }
}
