/** Tensors of a GGUF file under the names that transformers has, and what its converter has done to them. */
import { ARCHITECTURES, type Architecture } from "../../gguf/architectures.js";
import type { Metadata } from "./metadata.js";

/** What is undone as a tensor is read. */
export type Undone =
  /** Rows of rotary heads whose pairs are neighbours become halves. */
  | { rows: "query" | "key" }
  /** [out, in] becomes [in, out]. */
  | "transposed"
  /** 1 is taken off. */
  | "one";

/** `general.architecture` of every model that is read. */
const READ = ["llama", "qwen2", "qwen3", "gemma3", "phi3", "gpt2"] as const;

export type ArchitectureName = (typeof READ)[number];

/** The architecture of a file. Throws `ERR_UNSUPPORTED_MODEL`, `ERR_FILE_FORMAT`. */
export function architectureOf(meta: Metadata): ArchitectureName {
  const key = "general.architecture";
  const name = meta.text(key);
  if (name === undefined)
    throw meta.error(key, `is missing, so the file holds no model; read are ${READ.join(", ")}`);
  const found = READ.find((one) => one === name);
  if (found !== undefined) return found;
  const what = `the architecture "${name}" is not supported in GGUF files; supported are ${READ.join(", ")}`;
  throw meta.unsupported(what);
}

/** Tensors that say how positions are turned; the configuration has them. */
export const FACTORS = {
  all: "rope_freqs.weight",
  short: "rope_factors_short.weight",
  long: "rope_factors_long.weight",
};

/** An architecture's tensors, by their names in a file. */
export class Names {
  readonly #architecture: Architecture;
  readonly #prefix: string;
  readonly #outer: ReadonlyMap<string, string>;
  readonly #block: ReadonlyMap<string, string>;

  constructor(name: ArchitectureName) {
    this.#architecture = Object.values(ARCHITECTURES).find((one) => one.name === name) as Architecture;
    const { blocks, outer, block } = this.#architecture;
    this.#prefix = blocks === "h" ? "transformer." : "model.";
    const turned = (names: Readonly<Record<string, string>>): ReadonlyMap<string, string> =>
      new Map(Object.entries(names).map(([own, stored]) => [stored, own]));
    this.#outer = turned(outer);
    this.#block = turned(block);
  }

  /** A tensor's name in transformers, and what is undone; a name that is none of the architecture's stays. */
  of(stored: string): { name: string; undone?: Undone | undefined } {
    const [, layer, kind = "", leaf = ""] = /^(?:blk\.(\d+)\.)?([^.]+)\.(weight|bias)$/.exec(stored) ?? [];
    const known = (layer === undefined ? this.#outer : this.#block).get(kind);
    if (known === undefined) return { name: stored };
    const path = layer === undefined ? known : `${this.#architecture.blocks}.${layer}.${known}`;
    const prefix = known === "lm_head" ? "" : this.#prefix;
    return { name: `${prefix}${path}.${leaf}`, undone: this.#undone(kind, leaf, layer !== undefined) };
  }

  #undone(kind: string, leaf: string, inBlock: boolean): Undone | undefined {
    const { paired, shiftedNorms, blocks } = this.#architecture;
    if (paired === true && kind === "attn_q") return { rows: "query" };
    if (paired === true && kind === "attn_k") return { rows: "key" };
    if (leaf === "bias") return undefined;
    if (kind.endsWith("norm")) return shiftedNorms === true ? "one" : undefined;
    // GPT-2's own weights are [in, out].
    return blocks === "h" && inBlock ? "transposed" : undefined;
  }
}
