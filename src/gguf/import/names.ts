/** Maps tensor names of a GGUF file to transformers' names, with the conversions to undo. */
import { ARCHITECTURES, type Architecture } from "../architectures.js";
import type { Metadata } from "./metadata.js";

/** A converter's change to a tensor, undone when the tensor is read. */
export type Undone =
  /** Interleaved rows of rotary heads become halves. */
  | { rows: "query" | "key" }
  /** [out, in] becomes [in, out]. */
  | "transposed"
  /** 1 is subtracted. */
  | "one";

/** Supported values of `general.architecture`. */
const READ = ["llama", "qwen2", "qwen3", "gemma3", "phi3", "gpt2"] as const;

export type ArchitectureName = (typeof READ)[number];

/** Returns the architecture of a file. Throws `ERR_UNSUPPORTED_MODEL`, `ERR_FILE_FORMAT`. */
export function readArchitecture(meta: Metadata): ArchitectureName {
  const key = "general.architecture";
  const name = meta.readText(key);
  if (name === undefined)
    throw meta.createError(
      key,
      `is missing, so the file contains no model; supported are ${READ.join(", ")}`,
    );
  const found = READ.find((known) => known === name);
  if (found !== undefined) return found;
  const what = `the architecture "${name}" is not supported in GGUF files; supported are ${READ.join(", ")}`;
  throw meta.createUnsupported(what);
}

/** Tensors with rotation factors, which become part of the configuration. */
export const FACTORS = {
  all: "rope_freqs.weight",
  short: "rope_factors_short.weight",
  long: "rope_factors_long.weight",
};

/** An architecture's tensors, by their names in GGUF files. */
export class Names {
  readonly #architecture: Architecture;
  readonly #prefix: string;
  readonly #outer: ReadonlyMap<string, string>;
  readonly #block: ReadonlyMap<string, string>;

  constructor(name: ArchitectureName) {
    this.#architecture = Object.values(ARCHITECTURES).find(
      (architecture) => architecture.name === name,
    ) as Architecture;
    const { blocks, outer, block } = this.#architecture;
    this.#prefix = blocks === "h" ? "transformer." : "model.";
    const invert = (names: Readonly<Record<string, string>>): ReadonlyMap<string, string> =>
      new Map(Object.entries(names).map(([modelName, stored]) => [stored, modelName]));
    this.#outer = invert(outer);
    this.#block = invert(block);
  }

  /** Returns a tensor's name in transformers and the change to undo; an unknown name is returned unchanged. */
  resolve(stored: string): { name: string; undone?: Undone | undefined } {
    const [, layer, kind = "", leaf = ""] = /^(?:blk\.(\d+)\.)?([^.]+)\.(weight|bias)$/.exec(stored) ?? [];
    const known = (layer === undefined ? this.#outer : this.#block).get(kind);
    if (known === undefined) return { name: stored };
    const path = layer === undefined ? known : `${this.#architecture.blocks}.${layer}.${known}`;
    const prefix = known === "lm_head" ? "" : this.#prefix;
    return { name: `${prefix}${path}.${leaf}`, undone: this.#findUndone(kind, leaf, layer !== undefined) };
  }

  #findUndone(kind: string, leaf: string, inBlock: boolean): Undone | undefined {
    const { paired, shiftedNorms, blocks } = this.#architecture;
    if (paired === true && kind === "attn_q") return { rows: "query" };
    if (paired === true && kind === "attn_k") return { rows: "key" };
    if (leaf === "bias") return undefined;
    if (kind.endsWith("norm")) return shiftedNorms === true ? "one" : undefined;
    // GPT-2's weights are [in, out] in transformers.
    return blocks === "h" && inBlock ? "transposed" : undefined;
  }
}
