/** Layers with individually trained rows (PEFT's trainable_token_indices). */
import { LowrankError } from "../../errors.js";
import { Embedding } from "../../nn/embedding.js";
import { Linear } from "../../nn/linear.js";
import type { Module } from "../../nn/module.js";
import { LoRALayer } from "../layers/layer.js";
import { isStandard } from "../layers/standard.js";
import type { AdapterOptions } from "../options/options.js";
import { findParent } from "../adapter/registry.js";
import type { Replacement } from "../adapter/replacement.js";
import type { Targetable } from "../options/targets.js";
import { refuseUnmatched } from "./named.js";
import { findInputEmbedding, listTied } from "./tied.js";
import { TokenEmbedding, TokenLinear, TokenRows } from "../layers/token-rows.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { createRefusal } from "../../refusals/refusal.js";

/**
 * Makes replacements for the layers that `trainableTokenIndices` names, and for the layers tied to them, which share the
 * rows. Changes nothing in the model. Throws `ERR_OPTION`, `ERR_INDEX`, `ERR_NO_TARGETS`.
 * Source: PEFT's set_additional_trainable_modules.
 */
export function listTokenLayers(
  model: Targetable,
  { trainableTokenIndices: requested, ensureWeightTying, name }: AdapterOptions,
  { adapted, copied }: { adapted: readonly string[]; copied: readonly string[] },
): Map<string, Replacement> {
  const found = new Map<string, Replacement>();
  if (requested === undefined) return found;
  const rowsAt = new Map<string, readonly number[]>();
  for (const [layer, indices] of Object.entries(groupByLayer(model, requested))) {
    const paths = [...model.namedModules()].filter(([path]) => path.endsWith(layer));
    if (paths.length === 0) refuseUnmatched("trainableTokenIndices", layer, model);
    for (const [path, module] of paths) {
      checkRows(path, module, indices);
      if (copied.includes(path)) refuse(`${path} is trained in full by modulesToSave; choose one`);
      if (adapted.includes(path)) refuse(`${path} has a low-rank adapter too; choose one`);
      rowsAt.set(path, indices);
    }
  }
  for (const [path, indices] of rowsAt) {
    if (found.has(path)) continue;
    const [owner, property, original] = findParent(model, path);
    const layer = original as Embedding | Linear;
    const rows = new TokenRows(layer.weight, indices, name);
    const copy =
      layer instanceof Embedding ? new TokenEmbedding(layer, rows) : new TokenLinear(layer, rows, false);
    found.set(path, { owner, property, original, copy });
    if (!(layer instanceof Embedding)) continue;
    for (const tied of listTied(model, layer)) {
      const tiedIndices = rowsAt.get(tied);
      const equal = tiedIndices === undefined || tiedIndices.join() === indices.join();
      if (!equal && ensureWeightTying)
        throw createRefusal(ADAPTER_REFUSALS.tiedRows, "inject", `${path} and ${tied}`);
      if (!equal || adapted.includes(tied) || copied.includes(tied)) continue;
      const [head, key, module] = findParent(model, tied);
      found.get(tied)?.copy.dispose();
      found.set(tied, {
        owner: head,
        property: key,
        original: module,
        copy: new TokenLinear(module as Linear, rows, true),
      });
    }
  }
  return found;
}

function refuse(message: string): never {
  throw new LowrankError("ERR_OPTION", `trainableTokenIndices: ${message}`);
}

function groupByLayer(
  model: Targetable,
  requested: NonNullable<AdapterOptions["trainableTokenIndices"]>,
): Record<string, readonly number[]> {
  if (!Array.isArray(requested)) return requested as Record<string, readonly number[]>;
  const path = findInputEmbedding(model);
  if (path === undefined) throw createRefusal(ADAPTER_REFUSALS.tokenList, "inject");
  return { [path as string]: requested as readonly number[] };
}

function checkRows(path: string, module: Module, indices: readonly number[]): void {
  const plain = module instanceof Embedding || (module instanceof Linear && !module.fanInFanOut);
  if (!plain || module instanceof LoRALayer || !isStandard(module))
    throw createRefusal(ADAPTER_REFUSALS.tokenLayer, "inject", `${path}, a ${module.constructor.name}`);
  const rows = (module as Embedding).weight.shape[0] as number;
  const beyond = indices.find((index) => index >= rows);
  if (beyond !== undefined)
    throw new LowrankError(
      "ERR_INDEX",
      `trainableTokenIndices: ${path} has ${rows} rows, and ${beyond} was requested`,
    );
  if (new Set(indices).size < indices.length) refuse(`a row of ${path} is named twice`);
}
