/**
 * Plain layers compared with torch.nn in float64 (README.md): the output, the gradients of the input and of every
 * parameter, and buffers afterwards. Sums have some hundred terms at most, so 1e-5 of the largest value is a
 * hundred roundings; a wrong index or formula causes an error above a hundredth.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test, { type ExecutionContext } from "ava";
import { nn, tensor, type Tensor } from "../../src/index.js";
import { testDevices, type TestDevice } from "../devices.js";
import { hashed } from "../hashed.js";
import { error, goldens, onHost, type Golden } from "./goldens.js";

interface Case {
  layer: keyof typeof nn;
  args: unknown[];
  options: Record<string, unknown>;
  input: number[];
}

interface AttentionCase {
  args: [number, number];
  options: nn.MultiheadAttentionOptions;
  inputs: Record<string, number[]>;
}

interface RecurrentCase {
  layer: "LSTM" | "GRU";
  args: [number, number];
  options: nn.LSTMOptions;
  input: number[];
  state: number[] | null;
}

const { layers, attention, recurrent } = JSON.parse(
  readFileSync(join(goldens, "nn_layers.json"), "utf8"),
) as {
  layers: Record<string, Case>;
  attention: Record<string, AttentionCase>;
  recurrent: Record<string, RecurrentCase>;
};

/** Fills a layer and its inputs by their names, and compares all its results with the golden. */
async function held<L extends nn.Module>(
  t: ExecutionContext,
  name: string,
  device: TestDevice,
  layer: L,
  inputs: Record<string, number[]>,
  run: (layer: L, inputs: Tensor[]) => Tensor,
): Promise<void> {
  const host = await onHost(join(goldens, "nn_layers.safetensors"));
  const of = (part: string, shape: readonly number[], requiresGrad = false): Tensor =>
    tensor(hashed(`${name}.${part}`, shape), { shape, device, requiresGrad });
  const compare = async (part: string, ours: Tensor): Promise<void> => {
    const golden = host[`${name}.${part}`] as Golden;
    t.deepEqual(ours.shape, golden.shape, part);
    const off = error(await ours.data(), golden.data);
    t.true(off <= 1e-5, `${part}: ${off}`);
  };

  const state = layer.stateDict();
  const buffers = [...layer.namedBuffers()].map(([key]) => key);
  const goldenKeys = (kind: string): string[] =>
    Object.keys(host)
      .filter((key) => key.startsWith(`${name}.${kind}.`))
      .map((key) => key.slice(`${name}.${kind}.`.length))
      .sort();
  t.deepEqual(buffers.toSorted(), goldenKeys("buffer"));
  const trained = Object.keys(state).filter((key) => !buffers.includes(key));
  t.deepEqual([...Object.keys(inputs), ...trained].sort(), goldenKeys("grad"));
  const filled = Object.entries(state)
    .filter(([, { dtype }]) => dtype === "f32")
    .map(([key, one]) => [key, of(key, one.shape)] as const);
  layer.loadStateDict(Object.fromEntries(filled), { strict: false });
  layer.train(!name.endsWith("_eval"));

  const given = Object.entries(inputs).map(([key, shape]) => of(key, shape, true));
  const output = run(layer, given);
  await compare("output", output);
  output.backward(of("d_out", output.shape));
  for (const [i, key] of Object.keys(inputs).entries()) {
    await compare(`grad.${key}`, (given[i] as Tensor).grad as Tensor);
  }
  for (const [key, one] of layer.namedParameters()) await compare(`grad.${key}`, one.grad as Tensor);
  for (const [key, one] of layer.namedBuffers()) await compare(`buffer.${key}`, one);
}

/** Layers with tensors, and so with a device. */
const PLACED = /^(Conv|BatchNorm|GroupNorm|InstanceNorm)/;

type Layer = nn.Module & { forward(x: Tensor): Tensor };

for (const device of testDevices()) {
  for (const [name, { layer, args, options, input }] of Object.entries(layers)) {
    test(`${name} on ${device} is torch.nn's`, async (t) => {
      const build = nn[layer] as unknown as new (...args: unknown[]) => Layer;
      const placed = PLACED.test(layer) ? { ...options, device } : options;
      const given = Object.keys(placed).length > 0 ? [...args, placed] : args;
      await held(t, name, device, new build(...given), { input }, (layer, [x]) => layer.forward(x as Tensor));
    });
  }
  for (const [name, { args, options, inputs }] of Object.entries(attention)) {
    test(`${name} on ${device} is torch.nn's`, async (t) => {
      const layer = new nn.MultiheadAttention(...args, { ...options, device });
      await held(t, name, device, layer, inputs, (layer, [q, k, v]) => layer.forward(q as Tensor, k, v));
    });
  }
  for (const [name, { layer, args, options, input, state }] of Object.entries(recurrent)) {
    test(`${name} on ${device} is torch.nn's`, async (t) => {
      const states: Record<string, number[]> =
        state === null ? {} : layer === "GRU" ? { h: state } : { h: state, c: state };
      const inputs = { input, ...states };
      /** Concatenates all outputs of forward in one row, so that every gradient flows. */
      const row = (output: Tensor, ...rest: Tensor[]): Tensor =>
        output.reshape(1, -1).concat(
          rest.map((one) => one.reshape(1, -1)),
          1,
        );
      if (layer === "LSTM") {
        await held(
          t,
          name,
          device,
          new nn.LSTM(...args, { ...options, device }),
          inputs,
          (lstm, [x, h, c]) => {
            const [output, given] = lstm.forward(x as Tensor, h && c ? [h, c] : undefined);
            return row(output, ...given);
          },
        );
      } else {
        await held(t, name, device, new nn.GRU(...args, { ...options, device }), inputs, (gru, [x, h]) =>
          row(...gru.forward(x as Tensor, h)),
        );
      }
    });
  }
}
