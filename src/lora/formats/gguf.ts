/**
 * Writes adapters for llama.cpp. A and B are stored under the tensor's name with `.lora_a` and `.lora_b`; their scale is
 * alpha / rank of B. Source: llama.cpp's src/llama-adapter.cpp, and its convert_lora_to_gguf.py.
 */
import { optionName } from "../../arguments/option-name.js";
import { existsSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";

import { LowrankError } from "../../errors.js";
import { parseBase, type Base } from "../../gguf/adapter-base.js";
import { findGgufModule, interleaveRows } from "../../gguf/architectures.js";
import { refuseGguf } from "../../gguf/refusals.js";
import { convertToBytes } from "../../gguf/stored.js";
import { writeGguf, type GgufTensor, type GgufValue } from "../../gguf/writer.js";
import type { Tensor } from "../../tensor/tensor.js";
import { listSome, type AdapterFile } from "./adapter-file.js";
import { findBaseModel } from "./base-model.js";
import { sortTensors, type FileLayer } from "./layers.js";
import type { Targetable } from "../options/targets.js";

/** Writes an adapter as one GGUF file of f32 tensors. Throws `ERR_OPTION` for unsupported adapters, `ERR_WRITE`. */
export async function writeGgufAdapter(
  output: string,
  read: AdapterFile,
  model: Targetable | undefined,
): Promise<void> {
  const { file, options } = read;
  const { layers, biases, others } = sortTensors(read);
  if (options.useDora === true) refuseGguf("dora", file, "DoRA");
  refuseOthers(file, others);
  if (biases.size > 0) refuseGguf("biases", file, `the bias of ${listSome([...biases.keys()])}`);
  const base = readBase(read, model);
  const { loraAlpha = 8 } = options;
  const tensors = [...layers].flatMap(([path, layer]) => convertFactors(file, base, path, layer, loraAlpha));
  const metadata = new Map<string, GgufValue>([
    ["general.architecture", { text: base.architecture.name }],
    ["general.type", { text: "adapter" }],
    ["adapter.type", { text: "lora" }],
    ["adapter.lora.alpha", { f32: loraAlpha }],
    ["general.file_type", { u32: 0 }],
    ["general.quantization_version", { u32: 2 }],
  ]);
  await writeGguf(output, metadata, tensors);
}

/** Throws for tensors that are neither A nor B, with the refusal that fits the first kind found. */
function refuseOthers(file: string, others: readonly string[]): void {
  const kinds = [
    ["dora", /\.lora_magnitude_vector(\.weight)?$/],
    ["factorBiases", /\.lora_B\.bias$/],
    ["tokens", /\.(token_adapter\.)?trainable_tokens_\w+$/],
    ["modulesToSave", /./],
  ] as const;
  for (const [which, pattern] of kinds) {
    const found = others.filter((key) => pattern.test(key));
    if (found.length > 0) refuseGguf(which, file, listSome(found));
  }
}

/** Returns A and B of one layer. */
function convertFactors(
  file: string,
  base: Base,
  path: string,
  layer: FileLayer,
  alpha: number,
): GgufTensor[] {
  const { a, b, r, scaling, embedding } = layer;
  const { architecture, tied } = base;
  if (a.shape.length !== 2) refuseGguf("convolutions", file, path);
  const found = findGgufModule(architecture, path);
  const kind = found?.kind ?? "";
  const adapted = embedding ? kind === "token_embd" : /^(attn_(q|k|v|qkv|output)|ffn_\w+|output)$/.test(kind);
  if (found === undefined || !adapted || kind === "ffn_norm") refuseGguf("layers", file, path);
  if (tied && (kind === "token_embd" || kind === "output")) refuseGguf("tied", file, path);
  if (found.block !== undefined && found.block >= base.layers)
    throw new LowrankError(
      "ERR_UNMATCHED_KEY",
      `${file}: ${path} is beyond the model's ${base.layers} blocks; the adapter is of another model`,
    );
  const heads =
    architecture.paired !== true
      ? 0
      : kind === "attn_q"
        ? base.heads
        : kind === "attn_k"
          ? base.keyValueHeads
          : 0;
  const rows = b.shape[0] as number;
  if (heads > 0 && rows % (2 * heads) !== 0)
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `${file}: B of ${path} has ${rows} rows, which are not ${heads} heads of an even size; the adapter is of another model`,
    );
  // llama.cpp scales by alpha / rank, or by 1 if alpha is 0.
  const factor = alpha === 0 ? scaling : (scaling * r) / alpha;
  const scale = (tensor: Tensor): Tensor => (Math.abs(factor - 1) < 1e-12 ? tensor : tensor.mul(factor));
  const write = (
    end: string,
    shape: readonly number[],
    tensor: Tensor,
    change: (tensor: Tensor) => Tensor,
  ): GgufTensor => ({
    name: `${found.name}.weight.${end}`,
    shape,
    type: "f32",
    bytes: () => convertToBytes(file, path, tensor, "f32", change),
  });
  return [
    // llama.cpp looks up rows of an embedding's A by token, so A is transposed.
    embedding
      ? write("lora_a", a.shape.toReversed(), a, (tensor) => tensor.transpose())
      : write("lora_a", a.shape, a, (tensor) => tensor),
    write("lora_b", b.shape, b, (tensor) =>
      heads > 0 ? interleaveRows(scale(tensor), heads) : scale(tensor),
    ),
  ];
}

/** A model that can return its configuration, such as those from `loadModel`. */
interface Configured {
  toHubConfig(): Record<string, unknown>;
  listConfigChanges(): Record<string, unknown>;
}

/** Returns the base of an adapter: `model`, or the folder that the adapter names. */
function readBase({ file, baseModel }: AdapterFile, model: Targetable | undefined): Base {
  if (model !== undefined) {
    if (!("toHubConfig" in model && "listConfigChanges" in model))
      throw new LowrankError(
        "ERR_OPTION",
        "convertAdapter: gguf asks for a model that loadModel gives, or fromConfig",
      );
    const configured = model as Targetable & Configured;
    return parseBase("the model's configuration", file, {
      ...configured.toHubConfig(),
      ...configured.listConfigChanges(),
    });
  }
  const give = `give the model with ${optionName("model")}`;
  const why = "llama.cpp's names and the order of rows depend on the base model's configuration";
  const found = baseModel === undefined ? undefined : findBaseModel(dirname(file), baseModel);
  const base = found?.path;
  if (base === undefined || !statSync(base).isDirectory()) {
    const places =
      found !== undefined && found.places.length > 1 ? `: not at ${found.places.join(", nor at ")}` : "";
    const known =
      found === undefined
        ? "the adapter names no base model"
        : `its base, ${baseModel}, is ${base === undefined ? `not here${places}` : "no folder"}`;
    throw new LowrankError("ERR_OPTION", `${file}: ${why}, and ${known}; ${give}`);
  }
  const path = join(base, "config.json");
  if (!existsSync(path))
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${path}: no such file, and ${why}; ${give}`);
  let config: unknown;
  try {
    config = JSON.parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw new LowrankError("ERR_FILE_FORMAT", `${path}: not JSON (${(cause as Error).message})`, { cause });
  }
  if (typeof config !== "object" || config === null || Array.isArray(config))
    throw new LowrankError("ERR_FILE_FORMAT", `${path}: a JSON object was expected`);
  return parseBase(path, file, config as Record<string, unknown>);
}
