/**
 * LoRA on nn.MultiheadAttention compared with PEFT in float64 (README.md): its files, outputs, gradients and merged
 * weights. An output passes through five products of at most 8 terms and a softmax, some 60 roundings of 6e-8
 * relative to the largest value; gradients have twice as many. A missing adapter changes every tensor by over 1e-2.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test, { type ExecutionContext } from "ava";

import {
  lora,
  manualSeed,
  nn,
  noGrad,
  randn,
  safetensors,
  scope,
  tensor,
  type Tensor,
} from "../../src/index.js";
import { testDevices, type TestDevice } from "../devices.js";
import { hashed, temporary } from "../hashed.js";
import { error, goldens, onHost, type Golden } from "./goldens.js";

const folder = join(goldens, "peft_attention");
const ROUNDING = 1e-5;

class Net extends nn.Module {
  attn: nn.MultiheadAttention;
  head: nn.Linear;
  constructor(device: TestDevice) {
    super();
    this.attn = new nn.MultiheadAttention(8, 2, { batchFirst: true, device });
    this.head = new nn.Linear(8, 3, { device });
  }
  forward(query: Tensor, key: Tensor): Tensor {
    return this.head.forward(this.attn.forward(query, key));
  }
}

function build(device: TestDevice): Net {
  const model = new Net(device);
  const filled = [...model.namedParameters()].map(
    ([name, { shape }]) => [name, tensor(hashed(name, shape), { shape, device })] as const,
  );
  model.loadStateDict(Object.fromEntries(filled));
  return model;
}

const values = async (one: Tensor): Promise<Float32Array> => (await one.data()) as Float32Array;

async function near(
  t: ExecutionContext,
  own: Tensor,
  golden: Golden | undefined,
  what: string,
): Promise<void> {
  const off = error(await values(own), (golden as Golden).data);
  t.true(off <= ROUNDING, `${what} is off by ${off}`);
}

for (const device of testDevices()) {
  test(`on ${device} an adapter of attention gives PEFT's outputs, gradients and merged weights`, async (t) => {
    const golden = await onHost(join(folder, "golden.safetensors"));
    const on = (name: string): Tensor => {
      const { data, shape } = golden[name] as Golden;
      return tensor(Float32Array.from(data), { shape, device });
    };
    const [query, key, dOut] = [on("query"), on("key"), on("d_out")];
    const model = build(device);
    await near(t, model.forward(query, key), golden["base"], "base");
    const before = await values(model.forward(query, query));

    await lora.loadAdapter(model, join(folder, "adapter"), { trainable: true });
    model.train();
    const keys = Object.keys(await safetensors.load(join(folder, "adapter", "adapter_model.safetensors")));
    for (const [prefix, given] of [
      ["", key],
      ["self.", query],
    ] as const) {
      const parameters = new Map(model.namedParameters({ trainable: true }));
      t.is(parameters.size, 4);
      for (const one of parameters.values()) one.grad?.dispose();
      const output = model.forward(query, given);
      await near(t, output, golden[`${prefix}output`], `${prefix}output`);
      scope(() => model.forward(query, given).mul(dOut).sum().backward());
      for (const name of keys) {
        // PEFT wraps the attention layer, so its path in memory differs; ours is the path on disk.
        const own = name
          .replace("base_model.model.", "")
          .replace(".base_layer", "")
          .replace(/\.weight$/, ".default.weight");
        const { grad } = parameters.get(own) as Tensor;
        await near(t, grad as Tensor, golden[`${prefix}grad.${name}`], `${prefix}grad of ${own}`);
      }
      for (const one of parameters.values()) one.grad = null;
    }

    const out = join(temporary(), "saved");
    await lora.saveAdapter(model, out);
    const [saved, theirs] = await Promise.all([out, join(folder, "adapter")].map(contents));
    t.deepEqual(saved, theirs);

    const adapted = await values(model.forward(query, key));
    await lora.merge(model);
    await near(t, model.forward(query, key), golden["output"], "merged output");
    lora.unmerge(model);
    t.deepEqual(await values(model.forward(query, key)), adapted);
    t.deepEqual(await values(lora.withoutAdapters(model, () => model.forward(query, query))), before);

    await lora.mergeAndUnload(model);
    t.is(Object.getPrototypeOf(model.attn), nn.MultiheadAttention.prototype);
    await near(t, model.attn.in_proj_weight, golden["merged.in_proj_weight"], "merged in_proj_weight");
    await near(t, model.attn.out_proj.weight, golden["merged.out_proj.weight"], "merged out_proj.weight");
    t.deepEqual(Object.keys(model.stateDict()), Object.keys(build(device).stateDict()));
  });
}

/** Returns the tensors of an adapter's folder, and the relevant configuration. */
async function contents(dir: string): Promise<unknown> {
  const tensors = await safetensors.load(join(dir, "adapter_model.safetensors"), { device: "cpu" });
  const names = Object.keys(tensors).sort();
  const config = JSON.parse(readFileSync(join(dir, "adapter_config.json"), "utf8")) as Record<
    string,
    unknown
  >;
  return {
    targets: config["target_modules"],
    r: config["r"],
    alpha: config["lora_alpha"],
    tensors: await Promise.all(names.map(async (name) => [name, ...(await values(tensors[name] as Tensor))])),
  };
}

test("inject adapts attention and its output projection, by the layer's patterns, and unload removes both", async (t) => {
  manualSeed(2);
  const model = build("cpu");
  const x = randn([2, 5, 8], { device: "cpu" });
  const before = await values(model.forward(x, x));
  const two = await values(model.attn.forward(x.slice(0, 0, 1).squeeze(0)));
  const report = await lora.inject(model, {
    r: 2,
    targetModules: ["attn"],
    rankPattern: { attn: 3 },
    alphaPattern: { attn: 9 },
  });
  t.deepEqual(report.adapted, ["attn", "attn.out_proj"]);
  t.deepEqual(await values(model.forward(x, x)), before);
  t.deepEqual(
    (await lora.report(model)).map(({ rank, scaling }) => [rank, scaling]),
    [
      [3, 3],
      [3, 3],
    ],
  );
  noGrad(() => {
    for (const one of model.parameters({ trainable: true })) one.copy(randn(one.shape, { device: "cpu" }));
  });
  // Without a batch forward calls itself, and the adapter is still added once.
  const one = x.slice(0, 0, 1);
  const apart = await values(model.attn.forward(one.squeeze(0)));
  t.deepEqual(apart, await values(model.attn.forward(one)));
  t.notDeepEqual(apart, two);
  lora.unload(model);
  t.deepEqual(await values(model.forward(x, x)), before);
  t.deepEqual(await values(model.attn.forward(one.squeeze(0))), two);
});

test("adapters of attention refuse options that PEFT's attention layer does not support", async (t) => {
  const refused = async (options: lora.InjectOptions, message: RegExp): Promise<void> => {
    const model = build("cpu");
    await t.throwsAsync(lora.inject(model, { r: 2, targetModules: ["attn"], ...options }), { message });
    t.deepEqual(lora.adapters(model), []);
  };
  await refused({ useDora: true }, /attn, useDora/);
  await refused({ loraBias: true }, /attn, loraBias/);
  await refused({ bias: "all" }, /attn, bias all/);
  await refused({ loraDropout: 0.1 }, /loraDropout .*attn, a MultiheadAttention/);
  const out = join(temporary(), "adapter.safetensors");
  for (const format of ["kohya", "loralib"] as const)
    await t.throwsAsync(lora.convertAdapter(join(folder, "adapter"), out, { format }), {
      message: /cannot represent projections/,
    });
});
