/** Fused layers and convolutions in loralib's layout, saved and loaded. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { lora, nn, noGrad, randn, safetensors, type Tensor } from "../../src/index.js";
import { collectAdapterState } from "../../src/lora/formats/state.js";
import { testDevices } from "../devices.js";
import { temporary } from "../hashed.js";
import { apart, shapesIn } from "./adapted.js";

test("a merged linear layer of loralib's is read as the equal plain one", async (t) => {
  class Fused extends nn.Module {
    qkv = new nn.Linear(4, 6);
    forward(x: Tensor): Tensor {
      return this.qkv.forward(x);
    }
  }
  const model = new Fused();
  const [a, b] = [randn([4, 4], { device: "cpu" }), randn([4, 2], { device: "cpu" })];
  const file = join(temporary(), "l.safetensors");
  await safetensors.save(file, { "qkv.lora_A": a, "qkv.lora_B": b });
  const options = { loraAlpha: 3, enableLora: [true, false, true] };
  await t.throwsAsync(lora.loadAdapter(model, file, { loraAlpha: 3 }), {
    code: "ERR_OPTION",
    message: /enableLora .*\(qkv has 2, and none is given\)/,
  });
  await lora.loadAdapter(model, file, options);
  const delta = (await (model.qkv as unknown as lora.Linear).deltaWeight().data()) as Float32Array;
  const [A, B] = [(await a.data()) as Float32Array, (await b.data()) as Float32Array];
  for (let row = 0; row < 6; row++) {
    for (let column = 0; column < 4; column++) {
      const slice = [0, undefined, 1][Math.floor(row / 2)];
      const sum =
        slice === undefined
          ? 0
          : [0, 1].reduce(
              (n, j) =>
                n +
                (B[(slice * 2 + (row % 2)) * 2 + j] as number) * (A[(slice * 2 + j) * 4 + column] as number),
              0,
            );
      t.true(Math.abs((delta[row * 4 + column] as number) - 1.5 * sum) < 1e-5);
    }
  }
});

test("a convolution in loralib's layout has the same ΔW, at the same rank", async (t) => {
  const [out, inputs, k, r] = [3, 2, 3, 2];
  const [dir, file] = [temporary(), join(temporary(), "l.safetensors")];
  const folder = async (shapes: Record<"A" | "B", number[]>): Promise<Record<string, Tensor>> => {
    const tensors = {
      "base_model.model.conv.lora_A.weight": randn(shapes.A, { device: "cpu" }),
      "base_model.model.conv.lora_B.weight": randn(shapes.B, { device: "cpu" }),
    };
    writeFileSync(
      join(dir, "adapter_config.json"),
      JSON.stringify({ peft_type: "LORA", r, lora_alpha: 4, target_modules: ["conv"] }),
    );
    await safetensors.save(join(dir, "adapter_model.safetensors"), tensors);
    return tensors;
  };
  const [a, b] = Object.values(await folder({ A: [r, inputs, k, k], B: [out, r, 1, 1] })) as [Tensor, Tensor];
  await lora.convertAdapter(dir, file, { format: "loralib" });
  const read = await safetensors.load(file, { device: "cpu" });
  const [A, B] = [read["conv.lora_A"] as Tensor, read["conv.lora_B"] as Tensor];
  t.deepEqual(
    [A.shape, B.shape],
    [
      [r * k, inputs * k],
      [out * k, r * k],
    ],
  );
  const product = (await B.matmul(A).data()) as Float32Array;
  const expected = (await b
    .reshape(out, r)
    .matmul(a.reshape(r, inputs * k * k))
    .data()) as Float32Array;
  t.true(expected.every((v, i) => Math.abs(v - (product[i] as number)) < 1e-6));

  for (const [A, B, message] of [
    [[r, inputs, 3], [out, r, 1], /not two-dimensional .*\(conv\)/],
    [[r, inputs, 3, 5], [out, r, 1, 1], /not square .*\(conv, 3×5\)/],
    [[r, inputs, 3, 3], [4, 1, 1, 1], /grouped convolution .*\(conv\)/],
  ] as const) {
    await folder({ A: [...A], B: [...B] });
    await t.throwsAsync(lora.convertAdapter(dir, file, { format: "loralib" }), {
      code: "ERR_OPTION",
      message,
    });
  }
});

for (const device of testDevices()) {
  test(`on ${device} a merged linear layer is saved as the equal plain one, and loaded as such`, async (t) => {
    class Fused extends nn.Module {
      qkv: nn.Linear = new nn.Linear(6, 9, { device });
      forward(x: Tensor): Tensor {
        return this.qkv.forward(x);
      }
    }
    const plain = new Fused();
    const fused = new Fused();
    fused.qkv = lora.MergedLinear.fromBase(plain.qkv, {
      enableLora: [true, false, true],
      mergeWeights: false,
    });
    const outputs = async (model: Fused): Promise<Float32Array> =>
      (await model.forward(x).data()) as Float32Array;
    const x = randn([4, 6], { device });
    for (const useRslora of [false, true]) {
      await lora.inject(fused, { r: 2, loraAlpha: 3, targetModules: ["qkv"], useRslora });
      noGrad(() => {
        for (const [, one] of collectAdapterState(fused, "default")) one.copy(randn(one.shape, { device }));
      });
      const [dir, again] = [temporary(), temporary()];
      await lora.saveAdapter(fused, dir);
      t.deepEqual(Object.values(shapesIn(join(dir, "adapter_model.safetensors"))), [
        [4, 6],
        [9, 4],
      ]);
      const expected = await outputs(fused);
      lora.unload(fused);
      const file = join(temporary(), "l.safetensors");
      await lora.convertAdapter(dir, file, { format: "loralib", model: fused });
      t.deepEqual(shapesIn(file), { "qkv.lora_A": [4, 6], "qkv.lora_B": [6, 2] });
      await lora.loadAdapter(fused, file, { enableLora: [true, false, true] });
      t.true(apart(await outputs(fused), expected) < 1e-6);
      lora.unload(fused);
      for (const model of [plain, fused]) {
        await lora.loadAdapter(model, dir);
        t.true(apart(await outputs(model), expected) < 1e-6);
        await lora.saveAdapter(model, again);
        for (const file of ["adapter_config.json", "adapter_model.safetensors"])
          t.deepEqual(readFileSync(join(again, file)), readFileSync(join(dir, file)));
        lora.unload(model);
      }
    }
  });
}

for (const device of testDevices()) {
  test(`on ${device} a loralib convolution is read with rank r·k², and adds its ΔW`, async (t) => {
    class Net extends nn.Module {
      conv: nn.Conv2d = new nn.Conv2d(2, 3, 3, { padding: 1, device });
      forward(x: Tensor): Tensor {
        return this.conv.forward(x);
      }
    }
    const model = new Net();
    const x = randn([1, 2, 5, 5], { device });
    const [r, k] = [2, 3];
    const [a, b] = [randn([r * k, 2 * k], { device: "cpu" }), randn([3 * k, r * k], { device: "cpu" })];
    const file = join(temporary(), "l.safetensors");
    await safetensors.save(file, { "conv.lora_A": a, "conv.lora_B": b });
    await lora.loadAdapter(model, file, { loraAlpha: 4 });
    const layer = model.conv as unknown as lora.Conv2d;
    t.is(layer.adapters.get("default")?.r, r * k * k);
    const delta = (await noGrad(() => layer.deltaWeight()).data()) as Float32Array;
    const expected = (await b
      .matmul(a)
      .mul(4 / r)
      .data()) as Float32Array;
    t.true(apart(expected, delta) < 1e-5);

    const rows = Object.values(await lora.report(model));
    t.true(
      Math.abs((rows[0]?.normDelta ?? 0) / Math.sqrt(expected.reduce((n, v) => n + v * v, 0)) - 1) < 1e-5,
    );
    const before = (await noGrad(() => model.forward(x)).data()) as Float32Array;
    const kohya = join(temporary(), "k.safetensors");
    const dir = temporary();
    await lora.saveAdapter(model, dir);
    await lora.convertAdapter(dir, kohya, { format: "kohya" });
    t.deepEqual(shapesIn(kohya)["lora_unet_conv.lora_down.weight"], [18, 2, 3, 3]);
    lora.unload(model);
    await lora.loadAdapter(model, kohya);
    t.true(apart((await noGrad(() => model.forward(x)).data()) as Float32Array, before) < 1e-5);
  });
}
