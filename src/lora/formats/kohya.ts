/**
 * Kohya's format. A layer's names consist of `lora_unet_` or `lora_te_`, the path with dots replaced by underscores, and
 * `.lora_down.weight` (A), `.lora_up.weight` (B) or `.alpha`. Source: kohya-ss/sd-scripts, networks/lora.py.
 */
import { tensor } from "../../tensor/create.js";
import { LowrankError } from "../../errors.js";
import { Linear } from "../../nn/linear.js";
import type { Tensor } from "../../tensor/tensor.js";
import { matchExactly, describeRanks } from "../options/exact.js";
import { findTargets, type Targetable } from "../options/targets.js";
import { PREFIX, listSome, type AdapterFile } from "./adapter-file.js";
import type { FileLayers } from "./layers.js";
import { FILE_REFUSALS } from "../../refusals/files.js";
import { createRefusal } from "../../refusals/refusal.js";

/** Name prefixes of the networks: the image model and up to three text encoders. */
const PREFIXES: readonly string[] = ["lora_unet", "lora_te", "lora_te1", "lora_te2", "lora_te3"];

export type KohyaPrefix = string;

export function isKohya(names: readonly string[]): boolean {
  return names.some((name) => /\.(lora_down|lora_up)\.weight$/.test(name));
}

function flattenPath(path: string): string {
  return path.replaceAll(".", "_");
}

/** Throws for a prefix unknown to the format. */
export function checkPrefix(prefix: string): void {
  if (!PREFIXES.includes(prefix))
    throw new LowrankError(
      "ERR_OPTION",
      `kohya: prefix must be one of ${PREFIXES.join(", ")}, got "${prefix}"`,
    );
}

/** Renames a file's layers to kohya's names and makes its metadata. Appends the alpha tensors to `created`; the caller disposes them. */
export function convertToKohya(
  { layers, biases, others }: FileLayers,
  file: string,
  prefix: KohyaPrefix,
  created: Tensor[],
): { tensors: Record<string, Tensor>; metadata: Record<string, string> } {
  checkPrefix(prefix);
  const beyond = [...others, ...[...biases.keys()].map((path) => `the bias of ${path}`)];
  if (beyond.length > 0) throw createRefusal(FILE_REFUSALS.kohyaBeyond, file, listSome(beyond));
  const tensors: Record<string, Tensor> = {};
  const from = new Map<string, string>();
  for (const [path, { embedding, a, b, r, scaling }] of layers) {
    if (embedding) throw createRefusal(FILE_REFUSALS.kohyaEmbedding, file, path);
    if ((a.shape.length !== 2 && a.shape.length !== 4) || b.shape[1] !== r)
      throw createRefusal(FILE_REFUSALS.kohyaConvolution, file, path);
    const name = `${prefix}_${flattenPath(path)}`;
    const other = from.get(name);
    if (other !== undefined)
      throw createRefusal(FILE_REFUSALS.kohyaNames, file, `${other} and ${path}: ${name}`);
    from.set(name, path);
    const alpha = tensor(scaling * r, { device: "cpu" });
    created.push(alpha);
    Object.assign(tensors, {
      [`${name}.alpha`]: alpha,
      [`${name}.lora_down.weight`]: a,
      [`${name}.lora_up.weight`]: b,
    });
  }
  const formatCommon = (values: number[]): string =>
    new Set(values).size === 1 ? String(values[0]) : "Dynamic";
  const all = [...layers.values()];
  const metadata = {
    ss_network_module: "networks.lora",
    ss_network_dim: formatCommon(all.map(({ r }) => r)),
    ss_network_alpha: formatCommon(all.map(({ r, scaling }) => scaling * r)),
  };
  return { tensors, metadata };
}

interface Group {
  down?: Tensor | undefined;
  up?: Tensor | undefined;
  alpha?: Tensor | undefined;
}

/**
 * Converts a kohya file, matching its names with the modules of `model`. `prefix` selects one of several networks. Takes
 * ownership of the tensors.
 * Throws `ERR_UNMATCHED_KEY`, `ERR_SHAPE_MISMATCH`, `ERR_FILE_FORMAT`, `ERR_OPTION`.
 */
export async function convertFromKohya(
  file: string,
  tensors: Record<string, Tensor>,
  model: Targetable,
  prefix?: KohyaPrefix,
): Promise<AdapterFile> {
  if (prefix !== undefined) checkPrefix(prefix);
  const groups = groupTensors(file, tensors, prefix);
  const modules = findTargets(model, { targetModules: ".*" });
  const paths = new Map<string, string>();
  for (const path of modules.keys()) {
    const other = paths.get(flattenPath(path));
    if (other !== undefined && [...groups.keys()].includes(flattenPath(path)))
      throw new LowrankError(
        "ERR_OPTION",
        `${file}: ${flattenPath(path)} could be ${other} or ${path} of this model`,
      );
    paths.set(flattenPath(path), path);
  }
  const unmatched = [...groups.keys()].filter((name) => !paths.has(name));
  if (unmatched.length > 0)
    throw new LowrankError("ERR_UNMATCHED_KEY", `${file}: not of this model: ${listSome(unmatched)}`);
  const out: Record<string, Tensor> = {};
  const ranks = new Map<string, { r: number; loraAlpha: number }>();
  for (const [name, { down, up, alpha }] of groups) {
    const path = paths.get(name) as string;
    if (down === undefined || up === undefined)
      throw new LowrankError(
        "ERR_UNMATCHED_KEY",
        `${file}: ${name} has no ${down === undefined ? "lora_down" : "lora_up"}.weight`,
      );
    const r = down.shape[0] as number;
    if (up.shape[1] !== r)
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `${file}: ${name} goes down to rank ${r} and up from ${up.shape[1]}`,
      );
    // A missing or zero alpha means a scaling of 1.
    const value = alpha === undefined ? 0 : await alpha.item();
    ranks.set(path, { r, loraAlpha: value === 0 ? r : value });
    // Some tools write a linear layer as a 1×1 convolution.
    const linear = modules.get(path) instanceof Linear;
    const toPlain = (factor: Tensor): Tensor =>
      linear && factor.shape.length === 4 ? factor.reshape(factor.shape[0] as number, -1) : factor;
    out[`${PREFIX}${path}.lora_A.weight`] = toPlain(down);
    out[`${PREFIX}${path}.lora_B.weight`] = toPlain(up);
  }
  return {
    file,
    tensors: out,
    options: { ...describeRanks(ranks), targetModules: matchExactly(model, [...ranks.keys()], []) },
  };
}

/** Groups the tensors by layer name without the prefix. */
function groupTensors(
  file: string,
  tensors: Readonly<Record<string, Tensor>>,
  wanted: KohyaPrefix | undefined,
): Map<string, Group> {
  const groups = new Map<string, Group>();
  const networks = new Set<string>();
  const unknown: string[] = [];
  for (const [key, tensor] of Object.entries(tensors)) {
    const [, network, name, part] =
      /^(lora_(?:unet|te\d?))_(.*?)\.(lora_down\.weight|lora_up\.weight|alpha)$/.exec(key) ?? [];
    if (network === undefined || name === undefined || !PREFIXES.includes(network)) unknown.push(key);
    else {
      networks.add(network);
      if (wanted !== undefined && network !== wanted) continue;
      const which = part === "alpha" ? "alpha" : part === "lora_up.weight" ? "up" : "down";
      groups.set(name, { ...groups.get(name), [which]: tensor });
    }
  }
  if (unknown.length > 0)
    throw new LowrankError(
      "ERR_FILE_FORMAT",
      `${file}: ${listSome(unknown)}: of kohya's networks lora_down, lora_up and alpha are read, below ${PREFIXES.join(", ")}`,
    );
  if (networks.size > 1 && wanted === undefined)
    throw createRefusal(FILE_REFUSALS.kohyaNetworks, file, [...networks].join(", "));
  if (groups.size === 0)
    throw new LowrankError(
      "ERR_UNMATCHED_KEY",
      `${file}: holds nothing below ${String(wanted)}; there are ${[...networks].join(", ")}`,
    );
  return groups;
}
