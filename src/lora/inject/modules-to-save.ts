/** Trained copies of modules and biases that belong to an adapter. */
import { zeros } from "../../tensor/create.js";
import { listBufferNames, isPersistent } from "../../nn/buffers.js";
import { Module } from "../../nn/module.js";
import { session } from "../../native/binding.js";
import { keep, noGrad } from "../../tensor/scope.js";
import {
  isTensor,
  recordOp,
  makeParameter,
  type BlockDType,
  type DType,
  type Tensor,
} from "../../tensor/tensor.js";
import { listHeads, isHead, type AdapterOptions } from "../options/options.js";
import { LoRALayer } from "../layers/layer.js";
import { refuseUnmatched } from "./named.js";
import { isStandard } from "../layers/standard.js";
import { findParent, type AdapterNote } from "../adapter/registry.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { createRefusal } from "../../refusals/refusal.js";
import { isWithin, type Replacement } from "../adapter/replacement.js";

/**
 * Returns the outermost modules whose paths end with one of `modulesToSave`. This is PEFT's rule, so "norm" matches every
 * norm. The usual names of heads may match nothing if other names do. Throws `ERR_NO_TARGETS`.
 */
export function findSavedModules(
  model: Module,
  { modulesToSave: names, taskType }: AdapterOptions,
): string[] {
  const paths = [...model.namedModules()].map(([path]) => path);
  const missing = names.filter((name) => !paths.some((path) => path.endsWith(name)));
  const all = missing.length === names.length && listHeads(taskType).length === 0;
  const wrong = all ? missing : missing.filter((name) => !isHead(name));
  if (wrong[0] !== undefined) refuseUnmatched("modulesToSave", wrong[0], model);
  const hit = paths.filter((path) => names.some((name) => path.endsWith(name)));
  return hit.filter((path) => !hit.some((outer) => path.startsWith(`${outer}.`)));
}

/** Copies the module at `path`, without putting the copy into the model. */
export function copyModule(model: Module, path: string): Replacement {
  const [owner, property, original] = findParent(model, path);
  for (const [modulePath, module] of original.namedModules(path)) checkCopyable(modulePath, module);
  return { owner, property, original, copy: cloneModule(original) };
}

/** Copies the biases that the option `bias` selects, except those in copied modules. */
export function copyBiases(
  model: Module,
  adapter: AdapterNote,
  { adapted, copied }: { adapted: readonly string[]; copied: readonly string[] },
): void {
  const { bias: mode } = adapter.options;
  if (mode === "none") return;
  for (const [path, module] of model.namedModules()) {
    const { bias } = module as { bias?: unknown };
    const wanted = mode === "all" || (mode === "lora_only" && adapted.includes(path));
    if (!isTensor(bias) || !wanted || isWithin(path, copied)) continue;
    adapter.biases.set(path, { owner: module, property: "bias", original: bias, copy: copyTrainable(bias) });
  }
}

/** Throws for a module with private members or functions bound to the object, since a copy cannot have them. */
function checkCopyable(path: string, module: Module): void {
  const refuse = (found: string): never => {
    throw createRefusal(
      ADAPTER_REFUSALS.boundCopy,
      "inject",
      `${path}, a ${module.constructor.name}: ${found}`,
    );
  };
  if (module instanceof LoRALayer && module.adapters.size > 0 && !isStandard(module))
    throw createRefusal(ADAPTER_REFUSALS.ownCopy, "inject", `${path}, a ${module.constructor.name}`);
  for (const [name, value] of Object.entries(module)) {
    if (typeof value !== "function") continue;
    const bound =
      value.name.startsWith("bound ") || (value.prototype === undefined && /\bthis\b/.test(String(value)));
    if (bound || name === "forward") refuse(name);
  }
  for (let prototype = Object.getPrototypeOf(module) as object; prototype !== Module.prototype;) {
    if (/\bthis\s*\.\s*#/.test(String(prototype.constructor))) refuse("private members");
    prototype = Object.getPrototypeOf(prototype) as object;
  }
}

/** Makes a module of the same kind with trainable copies of its tensors. A low-rank layer becomes a plain one. */
function cloneModule(given: Module): Module {
  const module = given instanceof LoRALayer && given.adapters.size > 0 ? given.toPlain() : given;
  const copy = Object.assign(Object.create(Object.getPrototypeOf(module) as object), module) as Module;
  const fields = copy as unknown as Record<string, unknown>;
  const buffers = listBufferNames(module);
  for (const [key, value] of Object.entries(copy)) {
    if (buffers.includes(key)) delete fields[key];
    else if (isTensor(value)) fields[key] = copyTrainable(value);
    // The list is copied so that replacing children below does not change the original.
    else if (Array.isArray(value)) fields[key] = [...(value as unknown[])];
  }
  for (const name of buffers) {
    const tensor = (module as unknown as Record<string, Tensor | null>)[name] ?? null;
    const persistent = isPersistent(module, name);
    copy.registerBuffer(name, tensor === null ? null : copyPlainly(tensor), { persistent });
  }
  for (const [name, child] of module.children()) copy.replaceChild(name, cloneModule(child));
  return copy;
}

/** Copies a tensor without making it trainable. */
function copyPlainly(tensor: Tensor): Tensor {
  const { shape, dtype, device } = tensor;
  // A buffer holds floats or indices, never blocks.
  return zeros(shape, { dtype: dtype as Exclude<DType, BlockDType>, device }).copy(tensor);
}

/** Makes a trainable f32 copy that outlives the current scope. */
function copyTrainable(tensor: Tensor): Tensor {
  const copy = noGrad(() =>
    tensor.dtype === "f32" ? recordOp(() => session().unary("copy", tensor.id)) : tensor.to("f32"),
  );
  keep(copy);
  return makeParameter(copy);
}
