/**
 * Optimizers compared with PyTorch in float64, and Lion with its paper (README.md): parameters and state after one
 * step and after ten, in two groups, and with the state saved and loaded in between. A step has some ten roundings.
 */
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import test from "ava";
import { optim, tensor, type Tensor } from "../../src/index.js";
import { testDevices } from "../devices.js";
import { hashed } from "../hashed.js";
import { error, goldens, onHost, type Golden } from "./goldens.js";

type Kind = "Adam" | "AdamW" | "Adafactor" | "Lion";

interface Case {
  optimizer: Kind;
  options: Record<string, unknown>;
  own: Record<string, unknown>;
}

const { shapes, cases } = JSON.parse(readFileSync(join(goldens, "optimizers.json"), "utf8")) as {
  shapes: Record<string, number[]>;
  cases: Record<string, Case>;
};

for (const device of testDevices()) {
  for (const [name, { optimizer: kind, options, own }] of Object.entries(cases)) {
    test(`${name} on ${device} steps like the reference, also from a saved state`, async (t) => {
      const host = await onHost(join(goldens, "optimizers.safetensors"));
      const keys = Object.keys(shapes);
      const params = keys.map((key) =>
        tensor(hashed(`${name}.${key}`, shapes[key] as number[]), {
          shape: shapes[key],
          device,
          requiresGrad: true,
        }),
      );
      const make = (): optim.Optimizer => {
        const groups = [{ params: params.slice(0, 2) }, { params: params.slice(2), ...own }];
        return new optim[kind](groups as never, options);
      };
      const compare = async (part: string, ours: Tensor): Promise<void> => {
        const golden = host[`${name}.${part}`] as Golden;
        t.deepEqual(ours.shape, golden.shape, part);
        const off = error(await ours.data(), golden.data);
        t.true(off <= 1e-5, `${part}: ${off}`);
      };
      let optimizer = make();
      for (let step = 1; step <= 10; step++) {
        for (const [i, key] of keys.entries()) {
          const shape = shapes[key] as number[];
          (params[i] as Tensor).grad = tensor(hashed(`${name}.${key}.${step}`, shape), { shape, device });
        }
        optimizer.step();
        if (step === 5) {
          const file = join(
            tmpdir(),
            `lowrank-${process.pid}-${name}-${device}.safetensors`.replace(/:/g, "-"),
          );
          await optimizer.save(file);
          const { state } = optimizer.stateDict();
          optimizer.dispose();
          optimizer = make();
          await optimizer.load(file);
          t.deepEqual(Object.keys(optimizer.stateDict().state), Object.keys(state));
        }
        if (step !== 1 && step !== 10) continue;
        const { state } = optimizer.stateDict();
        for (const [i, key] of keys.entries()) {
          await compare(`${step}.${key}`, params[i] as Tensor);
          const parts = Object.entries(state[i] as optim.ParameterState).filter(([part]) => part !== "step");
          const expected = Object.keys(host).filter((one) => one.startsWith(`${name}.${step}.${key}.`));
          t.deepEqual(
            parts.map(([part]) => `${name}.${step}.${key}.${part}`).toSorted(),
            expected.toSorted(),
          );
          for (const [part, value] of parts) await compare(`${step}.${key}.${part}`, value as Tensor);
        }
      }
      optimizer.dispose();
    });
  }
}
