/** Sorts an adapter file's tensors by layer. */
import { LowrankError } from "../../errors.js";
import type { Tensor } from "../../tensor/tensor.js";
import { computeScaling } from "../layers/adapter.js";
import { compilePatterns } from "../options/patterns.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { createRefusal } from "../../refusals/refusal.js";
import { PREFIX, type AdapterFile } from "./adapter-file.js";

/** The factors of one layer. */
export interface FileLayer {
  embedding: boolean;
  a: Tensor;
  b: Tensor;
  r: number;
  scaling: number;
}

export interface FileLayers {
  layers: Map<string, FileLayer>;
  /** Trained biases of the base, by the path of their module. */
  biases: Map<string, Tensor>;
  /** Keys of all other tensors, such as magnitudes and fully trained modules. */
  others: string[];
}

/** Key patterns of A and B, of biases, and of copies of base tensors that PEFT also writes. */
const FACTOR = /^(.*)\.lora_(embedding_)?([AB])(\.weight)?$/;
const BIAS = /^(.*?)(\.base_layer)?\.bias$/;
const REPEATED = /\.(base_layer\.weight|original_module\.bias|modules_to_save\.bias)$/;

/** The output projection of an adapted attention layer, in PEFT's keys. */
const WRAPPED = /\.base_layer\.out_proj$/;

/** Rejects adapters of attention layers for formats that cannot express them. Throws `ERR_OPTION`. */
export function refuseAttention({ layers }: FileLayers, file: string, format: string): void {
  const path = [...layers.keys()].find((key) => WRAPPED.test(key))?.replace(WRAPPED, "");
  if (path !== undefined) throw createRefusal(ADAPTER_REFUSALS.attentionFormat, file, `${format}, ${path}`);
}

/** Sorts a file's tensors. Throws `ERR_UNMATCHED_KEY` for a layer that lacks A or B. */
export function sortTensors({ file, options, tensors }: AdapterFile): FileLayers {
  const halves = new Map<string, { embedding: boolean; A?: Tensor | undefined; B?: Tensor | undefined }>();
  const biases = new Map<string, Tensor>();
  const others: string[] = [];
  for (const [key, tensor] of Object.entries(tensors)) {
    const name = key.startsWith(PREFIX) ? key.slice(PREFIX.length) : key;
    const [, path, embedding, half, weight] = FACTOR.exec(name) ?? [];
    const [, biased] = BIAS.exec(name) ?? [];
    if (path !== undefined && (embedding === undefined) === (weight !== undefined)) {
      const found = halves.get(path) ?? { embedding: embedding !== undefined };
      halves.set(path, { ...found, [half as "A" | "B"]: tensor });
    } else if (REPEATED.test(name)) continue;
    else if (biased !== undefined && !/\.lora_\w+$/.test(biased)) biases.set(biased, tensor);
    else others.push(key);
  }
  const { r = 8, loraAlpha = 8, useRslora = false, rankPattern = {}, alphaPattern = {} } = options;
  const [rankOf, alphaOf] = [
    compilePatterns(rankPattern, "rankPattern"),
    compilePatterns(alphaPattern, "alphaPattern"),
  ];
  const layers = new Map<string, FileLayer>();
  for (const [path, { embedding, A, B }] of halves) {
    if (A === undefined || B === undefined)
      throw new LowrankError(
        "ERR_UNMATCHED_KEY",
        `${file}: ${path} has ${A === undefined ? "B and no A" : "A and no B"}`,
      );
    // In PEFT, the output projection of an attention layer has the rank and alpha of that layer.
    const owner = path.replace(WRAPPED, "");
    const rank = rankOf(owner) ?? r;
    if (A.shape[0] !== rank)
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `${file}: A of ${path} has rank ${A.shape[0]}, its configuration says ${rank}`,
      );
    const scaling = computeScaling(rank, alphaOf(owner) ?? loraAlpha, useRslora);
    layers.set(path, { embedding, a: A, b: B, r: rank, scaling });
  }
  return { layers, biases, others };
}
