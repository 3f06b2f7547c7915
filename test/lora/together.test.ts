/** Layers of one input, run together: what they give and learn is, to the bit, what each gives and learns alone. */
import test from "ava";

import {
  checkpoint,
  lora,
  manualSeed,
  nn,
  noGrad,
  randn,
  scope,
  type Device,
  type Tensor,
} from "../../src/index.js";
import { partsOf } from "../../src/lora/layers/layer.js";
import { withAdapterPerRow } from "../../src/lora/layers/rows.js";
import { together } from "../../src/lora/layers/together.js";
import { testDevices } from "../devices.js";

const [IN, ROWS] = [24, 18];

type Layer = nn.Module & { forward(x: Tensor): Tensor };

const plain = (device: Device, options: lora.LoRALinearOptions = {}, out = 10): lora.Linear =>
  new lora.Linear(IN, out, { r: 4, loraAlpha: 6, device, mergeWeights: false, ...options });

const merged = (layer: lora.Linear): lora.Linear => layer.merge();

/** A layer with two adapters, of which the active ones are named. */
function two(device: Device, active: readonly string[]): lora.Linear {
  const layer = plain(device);
  layer.addAdapter("other", layer.freshAdapter({ r: 2, loraAlpha: 2 }));
  layer.setActive(active.map((name) => ({ name, weight: 0.5 })));
  return layer;
}

/** One whose forward somebody put another in the place of. */
function watched(layer: lora.Linear): lora.Linear {
  const own = layer.forward.bind(layer);
  layer.forward = (x) => own(x).mul(2);
  return layer;
}

const sets: Record<string, (device: Device) => Layer[]> = {
  "plain ones of several ranks": (d) => [plain(d), plain(d, { r: 6 }, 14), plain(d, { r: 2, bias: false })],
  "four of them": (d) => [plain(d), plain(d), plain(d), plain(d)],
  "stored as [in, out]": (d) => [plain(d, { fanInFanOut: true }), plain(d, { fanInFanOut: true })],
  "with a bias of its own": (d) => [plain(d, { loraBias: true }), plain(d)],
  "one that drops": (d) => [plain(d), plain(d, { loraDropout: 0.5 }), plain(d)],
  "one of DoRA": (d) => [plain(d, { useDora: true }), plain(d), plain(d)],
  "a merged one": (d) => [merged(plain(d)), plain(d), plain(d)],
  "one without an adapter": (d) => [new nn.Linear(IN, 6, { device: d }), plain(d), plain(d)],
  "none with an adapter": (d) => [new nn.Linear(IN, 6, { device: d }), new nn.Linear(IN, 6, { device: d })],
  "slices of a merged layer": (d) => [
    new lora.MergedLinear(IN, 12, { r: 2, enableLora: [true, false, true], device: d, mergeWeights: false }),
    plain(d),
    plain(d),
  ],
  "another active adapter, and two": (d) => [
    two(d, ["other"]),
    two(d, ["default"]),
    two(d, ["default", "other"]),
  ],
  "one with a forward of its own": (d) => [plain(d), watched(plain(d)), plain(d)],
};

/** Outputs and gradients of `forward` over fresh randomness. */
async function results(
  layers: readonly Layer[],
  device: Device,
  forward: (x: Tensor) => Tensor[],
): Promise<(number[] | undefined)[]> {
  manualSeed(5);
  const x = randn([ROWS, IN], { device, requiresGrad: true });
  const y = scope(() => {
    const made = forward(x);
    const sums = made.map((one) => one.mul(one).sum());
    sums.reduce((sum, one) => sum.add(one)).backward();
    return made;
  });
  const asked = [x, ...layers.flatMap((layer) => [...layer.parameters()])];
  const values = [...y, ...asked.map((one) => one.grad)].map(async (one) =>
    one === null ? undefined : [...((await one.data()) as Float32Array)],
  );
  const all = await Promise.all(values);
  for (const one of asked) one.grad = null;
  for (const one of [x, ...y]) one.dispose();
  return all;
}

const alone = (layers: readonly Layer[]) => (x: Tensor) => layers.map((layer) => layer.forward(x));

for (const device of testDevices()) {
  for (const [name, make] of Object.entries(sets)) {
    test.serial(`${name} on ${device}`, async (t) => {
      manualSeed(11);
      const layers = make(device);
      noGrad(() =>
        scope(() => {
          for (const layer of layers)
            if (layer instanceof lora.Linear && !layer.merged)
              for (const adapter of layer.adapters.values())
                for (const [, part] of partsOf(adapter)) part.copy(randn(part.shape, { device }));
        }),
      );
      const of = (forward: (x: Tensor) => Tensor[]) => results(layers, device, forward);
      const expected = await of(alone(layers));
      t.deepEqual(await of((x) => together(layers, x)), expected);
      t.deepEqual(await of((x) => checkpoint(() => together(layers, x))), expected, "replayed");
      // Adapters of rows, and none.
      const names = ["default", null, "default"];
      t.deepEqual(
        await of((x) => withAdapterPerRow(names, () => together(layers, x))),
        await of((x) => withAdapterPerRow(names, () => alone(layers)(x))),
      );
      const root = new nn.Sequential(...layers);
      t.deepEqual(
        await of((x) => lora.withoutAdapters(root, () => together(layers, x))),
        await of((x) => lora.withoutAdapters(root, () => alone(layers)(x))),
      );
      root.dispose();
    });
  }
}
