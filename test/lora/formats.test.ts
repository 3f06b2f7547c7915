/** Adapters in PEFT's, kohya's and loralib's files, and the errors for unreadable files. */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { loadModel, lora, safetensors, tensor, type CausalLM, type Tensor } from "../../src/index.js";
import { runCli } from "../../src/cli/program.js";
import { testDevices } from "../devices.js";
import { temporary } from "../hashed.js";
import { adapted, attention, base, logits, shapesIn } from "./adapted.js";

/** Changes the tensors of a safetensors file. */
async function rewritten(
  file: string,
  change: (tensors: Record<string, Tensor>) => void,
  metadata: Record<string, string> = {},
): Promise<void> {
  const mapped = await safetensors.load(file, { device: "cpu" });
  const tensors: Record<string, Tensor> = {};
  for (const [key, one] of Object.entries(mapped))
    tensors[key] = tensor((await one.data()) as Float32Array, { shape: one.shape, device: "cpu" });
  for (const one of Object.values(mapped)) one.dispose();
  change(tensors);
  await safetensors.save(file, tensors, { metadata });
}

for (const device of testDevices()) {
  test(`on ${device} a conversion to kohya's format and back gives the same model`, async (t) => {
    const model = await adapted(device, {
      default: {
        ...attention,
        useRslora: true,
        rankPattern: { "layers.1.self_attn.q_proj": 3 },
        alphaPattern: { v_proj: 5 },
      },
    });
    const [adapter, kohya, back] = [temporary(), join(temporary(), "k.safetensors"), join(temporary(), "b")];
    await lora.saveAdapter(model, adapter);
    await lora.convertAdapter(adapter, kohya, { format: "kohya" });
    const name = "lora_te_model_layers_1_self_attn_q_proj";
    t.deepEqual(shapesIn(kohya)[`${name}.lora_down.weight`], [3, 32]);
    t.deepEqual(shapesIn(kohya)[`${name}.lora_up.weight`], [32, 3]);
    t.deepEqual(shapesIn(kohya)[`${name}.alpha`], []);
    t.is(Object.keys(shapesIn(kohya)).length, 3 * 4);

    const again = await loadModel<"causal-lm">(base, { device });
    await lora.convertAdapter(kohya, back, { format: "peft", model: again });
    t.is(JSON.parse(readFileSync(join(back, "adapter_config.json"), "utf8")).use_rslora, false);
    for (const source of [kohya, back]) {
      await lora.loadAdapter(again, source);
      const [one, other] = [await logits(again), await logits(model)];
      t.true(
        one.every((v, i) => Math.abs(v - (other[i] as number)) < 1e-5),
        source,
      );
      lora.unload(again);
    }
    await rewritten(kohya, (tensors) => {
      for (const key of Object.keys(tensors)) if (key.endsWith(".alpha")) delete tensors[key];
    });
    await lora.loadAdapter(again, kohya);
    t.true(
      (await lora.report(again)).every(({ scaling }) => scaling === 1),
      "without alpha the scaling is 1",
    );
    model.dispose();
    again.dispose();
  });

  test(`on ${device} a conversion to loralib's format and back gives the same model`, async (t) => {
    const model = await adapted(device, {
      default: {
        ...attention,
        targetModules: ["q_proj", "embed_tokens"],
        useRslora: true,
      },
    });
    const [adapter, file] = [temporary(), join(temporary(), "l.safetensors")];
    await lora.saveAdapter(model, adapter);
    await lora.convertAdapter(adapter, file, { format: "loralib" });
    t.deepEqual(Object.keys(shapesIn(file)).sort(), [
      "model.embed_tokens.lora_A",
      "model.embed_tokens.lora_B",
      ...[0, 1].flatMap((i) => ["A", "B"].map((half) => `model.layers.${i}.self_attn.q_proj.lora_${half}`)),
    ]);
    const again = await loadModel<"causal-lm">(base, { device });
    await lora.loadAdapter(again, file);
    const [one, other] = [await logits(again), await logits(model)];
    t.true(one.every((v, i) => Math.abs(v - (other[i] as number)) < 1e-5));
    lora.unload(again);
    const damaged = join(temporary(), "d.safetensors");
    const tensors = await safetensors.load(file, { device: "cpu" });
    await safetensors.save(damaged, tensors, { metadata: { lora_alpha: "None" } });
    await t.throwsAsync(lora.loadAdapter(again, damaged), {
      code: "ERR_FILE_FORMAT",
      message: /d\.safetensors: lora_alpha in its metadata is "None".*; give loraAlpha$/,
    });
    await lora.loadAdapter(again, damaged, { loraAlpha: 2 });
    lora.unload(again);
    await rewritten(file, () => {});
    await t.throwsAsync(lora.loadAdapter(again, file), { code: "ERR_OPTION", message: /give loraAlpha/ });
    t.deepEqual(lora.adapters(again), []);
    await lora.loadAdapter(again, file, { loraAlpha: 2 });
    t.true((await lora.report(again)).every(({ scaling }) => scaling === 1));
    model.dispose();
    again.dispose();
  });

  test(`on ${device} an unsuitable file is refused with the reason, and the model does not change`, async (t) => {
    const source = await adapted(device, { default: attention });
    const model = await loadModel<"causal-lm">(base, { device });
    const before = await logits(model);
    const written = async (act: (dir: string) => void | Promise<void>): Promise<string> => {
      const dir = temporary();
      await lora.saveAdapter(source, dir);
      await act(dir);
      return dir;
    };
    const weights = (dir: string): string => join(dir, "adapter_model.safetensors");
    const configured = (dir: string, change: object): void => {
      const file = join(dir, "adapter_config.json");
      writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), ...change }));
    };
    const q = "base_model.model.model.layers.0.self_attn.q_proj";
    const cases: [code: string, message: RegExp, act: (dir: string) => void | Promise<void>][] = [
      [
        "ERR_FILE_FORMAT",
        /adapter_model\.bin.*pickled.*safe_serialization/s,
        (dir) => renameSync(weights(dir), join(dir, "adapter_model.bin")),
      ],
      [
        "ERR_FILE_FORMAT",
        /00001-of-00002.*shards.*max_shard_size/s,
        (dir) => renameSync(weights(dir), join(dir, "adapter_model-00001-of-00002.safetensors")),
      ],
      [
        "ERR_FILE_NOT_FOUND",
        /adapter_model\.safetensors: there is no such file/,
        (dir) => renameSync(weights(dir), join(dir, "weights.safetensors")),
      ],
      [
        "ERR_FILE_NOT_FOUND",
        /in folders below it: french; name one/,
        (dir) => {
          mkdirSync(join(dir, "french"));
          renameSync(join(dir, "adapter_config.json"), join(dir, "french", "adapter_config.json"));
        },
      ],
      [
        "ERR_SHAPE_MISMATCH",
        /q_proj\.lora_A\.weight.*its rank is 2, and its configuration says 3/s,
        (dir) => configured(dir, { r: 3 }),
      ],
      [
        "ERR_NOT_FINITE",
        new RegExp(`${q.replaceAll(".", "\\.")}\\.lora_B\\.weight holds NaN`),
        (dir) =>
          rewritten(weights(dir), (tensors) => {
            tensors[`${q}.lora_B.weight`] = tensor(new Float32Array(64).fill(NaN), {
              shape: [32, 2],
              device: "cpu",
            });
          }),
      ],
      [
        "ERR_NOT_FINITE",
        /q_proj\.lora_A\.weight, .*v_proj\.lora_A\.weight hold NaN or infinity/,
        (dir) =>
          rewritten(weights(dir), (tensors) => {
            for (const key of Object.keys(tensors))
              if (/layers\.0.*A\.weight/.test(key))
                tensors[key] = tensor(new Float32Array(64).fill(Infinity), { shape: [2, 32], device: "cpu" });
          }),
      ],
      [
        "ERR_NO_TARGETS",
        /adapter_model.*c_attn.*q_proj.*made for org\/gpt2/s,
        (dir) => configured(dir, { target_modules: ["c_attn"], base_model_name_or_path: "org/gpt2" }),
      ],
      [
        "ERR_UNMATCHED_KEY",
        /not of this model: .*layers\.7.*made for org\/larger/,
        async (dir) => {
          configured(dir, { base_model_name_or_path: "org/larger" });
          await rewritten(weights(dir), (tensors) => {
            const one = tensors[`${q}.lora_A.weight`] as Tensor;
            tensors[`${q.replace("layers.0", "layers.7")}.lora_A.weight`] = one;
          });
        },
      ],
      [
        "ERR_SHAPE_MISMATCH",
        /is \[2, 16\], this model takes \[2, 32\].*made for org\/other/,
        async (dir) => {
          configured(dir, { base_model_name_or_path: "org/other" });
          await rewritten(weights(dir), (tensors) => {
            tensors[`${q}.lora_A.weight`] = tensor(new Float32Array(32), { shape: [2, 16], device: "cpu" });
          });
        },
      ],
    ];
    for (const [code, message, act] of cases) {
      const dir = await written(act);
      await t.throwsAsync(lora.loadAdapter(model, dir), { code, message }, message.source);
      t.deepEqual(lora.adapters(model), []);
      t.deepEqual(await logits(model), before);
    }
    await t.throwsAsync(lora.loadAdapter(model, join(temporary(), "none")), {
      code: "ERR_FILE_NOT_FOUND",
      message: /no such/,
    });
    const dir = await written(() => {});
    await lora.loadAdapter(model, dir);
    await t.throwsAsync(lora.loadAdapter(model, dir), { code: "ERR_ADAPTER_EXISTS", message: /"default"/ });
    source.dispose();
    model.dispose();
  });
}

test("named adapters are in folders of their names, below the folder that is named", async (t) => {
  const model = await adapted("cpu", { french: attention });
  const dir = temporary();
  await lora.saveAdapter(model, dir, { name: "french" });
  t.true(existsSync(join(dir, "french", "adapter_config.json")));
  const again = await loadModel<"causal-lm">(base, { device: "cpu" });
  await lora.loadAdapter(again, dir, { name: "french" });
  await lora.loadAdapter(again, join(dir, "french"));
  t.deepEqual(lora.adapters(again), ["french", "default"]);
  const out = temporary();
  await lora.saveAdapter(again, out, { name: "french" });
  for (const file of ["adapter_config.json", "adapter_model.safetensors"])
    t.deepEqual(readFileSync(join(out, "french", file)), readFileSync(join(dir, "french", file)));
  model.dispose();
  again.dispose();
});

test("parts of an adapter that a format does not support are named", async (t) => {
  const cases: [lora.InjectOptions, "kohya" | "loralib", RegExp][] = [
    [
      { ...attention, modulesToSave: ["norm"] },
      "kohya",
      /kohya's format \(.*model\.norm\.weight\): it stores only lora_down/,
    ],
    [
      { ...attention, modulesToSave: ["lm_head"] },
      "loralib",
      /loralib's format \(base_model\.model\.lm_head\.weight\): it stores only lora_A/,
    ],
    [
      { ...attention, targetModules: ["embed_tokens"] },
      "kohya",
      /an adapter of an embedding in kohya's format \(model\.embed_tokens\)/,
    ],
  ];
  for (const [options, format, message] of cases) {
    const model = await adapted("cpu", { default: options });
    const [dir, output] = [temporary(), join(temporary(), "out.safetensors")];
    await lora.saveAdapter(model, dir);
    await t.throwsAsync(lora.convertAdapter(dir, output, { format }), { code: "ERR_OPTION", message });
    t.false(existsSync(output));
    model.dispose();
  }
  const onnx = lora.convertAdapter(temporary(), "x.onnx", { format: "onnx" as "gguf" });
  await t.throwsAsync(onnx, {
    code: "ERR_OPTION",
    message: /there is no format "onnx"; there are gguf, peft, kohya, loralib/,
  });
});

test("unreadable files in kohya's format are refused with the reason", async (t) => {
  const model = await loadModel<"causal-lm">(base, { device: "cpu" });
  const zero = (...shape: number[]): Tensor =>
    tensor(new Float32Array(shape.reduce((n, d) => n * d, 1)), { shape, device: "cpu" });
  const q = "lora_te_model_layers_0_self_attn_q_proj";
  const pair = { [`${q}.lora_down.weight`]: zero(2, 32), [`${q}.lora_up.weight`]: zero(32, 2) };
  const cases: [Record<string, Tensor>, code: string, message: RegExp, options?: lora.LoadAdapterOptions][] =
    [
      [
        { ...pair, [`${q}.lora_mid.weight`]: zero(2, 2, 3, 3) },
        "ERR_FILE_FORMAT",
        /q_proj\.lora_mid\.weight: of kohya's networks/,
      ],
      [{ ...pair, [`${q}.dora_scale`]: zero(32) }, "ERR_FILE_FORMAT", /dora_scale/],
      [
        { ...pair, "lora_unet_x.lora_down.weight": zero(2, 32) },
        "ERR_OPTION",
        /several networks \(lora_te, lora_unet\)/,
      ],
      [pair, "ERR_UNMATCHED_KEY", /nothing below lora_unet; there are lora_te/, { prefix: "lora_unet" }],
      [
        { ...pair, "lora_te_other.lora_down.weight": zero(2, 32) },
        "ERR_UNMATCHED_KEY",
        /not of this model: other/,
      ],
      [{ [`${q}.lora_down.weight`]: zero(2, 32) }, "ERR_UNMATCHED_KEY", /q_proj has no lora_up/],
      [
        { ...pair, [`${q}.lora_up.weight`]: zero(32, 3) },
        "ERR_SHAPE_MISMATCH",
        /down to rank 2 and up from 3/,
      ],
      [{ "a.weight": zero(2) }, "ERR_FILE_FORMAT", /neither as kohya's.*nor as loralib's/],
    ];
  for (const [tensors, code, message, options] of cases) {
    const file = join(temporary(), "k.safetensors");
    await safetensors.save(file, tensors);
    await t.throwsAsync(lora.loadAdapter(model, file, options), { code, message }, message.source);
    t.deepEqual(lora.adapters(model), []);
  }
  const file = join(temporary(), "k.safetensors");
  await safetensors.save(file, pair);
  await t.throwsAsync(lora.convertAdapter(file, temporary(), { format: "peft" }), {
    code: "ERR_OPTION",
    message: /without a model \(kohya\): .*looked up/,
  });
  await t.throwsAsync(lora.loadAdapter(model, "adapter.ckpt"), { code: "ERR_FILE_NOT_FOUND" });
  model.dispose();
});

test("an embedding's weight that PEFT saved with an adapter must equal the model's own", async (t) => {
  const model = await adapted("cpu", { default: attention });
  const dir = temporary();
  await lora.saveAdapter(model, dir);
  const file = join(dir, "adapter_model.safetensors");
  const state = model.stateDict();
  const plain = "base_model.model.model.embed_tokens.weight";
  const under = "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight";
  const own = {
    [plain]: state["model.embed_tokens.weight"] as Tensor,
    [under]: state["model.layers.0.self_attn.q_proj.weight"] as Tensor,
  };
  const values = await Promise.all(Object.values(own).map((one) => one.to("f32").data()));
  const withThem = (change: (v: number) => number, cut = 0) =>
    rewritten(file, (tensors) => {
      for (const [i, [key, { shape }]] of Object.entries(own).entries()) {
        const [rows, columns] = shape as [number, number];
        const given = (values[i] as Float32Array).map(change).subarray(cut * columns);
        tensors[key] = tensor(given, { shape: [rows - cut, columns], device: "cpu" });
      }
    });
  await withThem((v) => v);
  const loaded = (await loadModel(base, { device: "cpu" })) as CausalLM;
  await lora.loadAdapter(loaded, dir);
  t.deepEqual(await logits(loaded), await logits(model));
  loaded.dispose();
  for (const [change, cut, code, message] of [
    [(v: number) => v + 1, 0, "ERR_UNMATCHED_KEY", /differs from the model's own by up to 1/],
    [(v: number) => v, 1, "ERR_SHAPE_MISMATCH", /embed_tokens\.weight is \[98, .*another vocabulary/],
  ] as const) {
    await withThem(change, cut);
    const refusing = (await loadModel(base, { device: "cpu" })) as CausalLM;
    await t.throwsAsync(lora.loadAdapter(refusing, dir), { code, message });
    refusing.dispose();
  }
  model.dispose();
});

test.serial("the command exports an adapter", async (t) => {
  const model = await adapted("cpu", { default: attention });
  const dir = temporary();
  await lora.saveAdapter(model, dir);
  const output = join(temporary(), "out.safetensors");
  t.is(await runCli(["export", "--adapter", dir, "--format", "kohya", "--output", output]), 0);
  t.is(Object.keys(shapesIn(output)).length, 3 * 4);
  t.is(
    await runCli(["export", "--adapter", dir, "--format", "kohya", "--output", output]),
    1,
    "an existing file is not overwritten",
  );
  const back = join(temporary(), "back");
  t.is(
    await runCli(["export", "--adapter", output, "--format", "peft", "--output", back, "--model", base]),
    0,
  );
  t.true(existsSync(join(back, "adapter_config.json")));
  model.dispose();
});
