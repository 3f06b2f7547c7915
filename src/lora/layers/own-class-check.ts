/** Finds layers of user-defined classes that cannot be adapted in place, before anything changes. */
import type { Module } from "../../nn/module.js";
import { MultiheadAttention } from "../../nn/multihead-attention.js";
import type { AdapterOptions } from "../options/options.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { createRefusal, type Refusal } from "../../refusals/refusal.js";
import { isTensor, type Tensor } from "../../tensor/tensor.js";
import { LoRALayer } from "./layer.js";
import { resolveClass, hasOwnForward, isInPlace, findKind, wasReassigned } from "./own-class.js";
import { isStandard, LORA_FIELDS } from "./standard.js";

/** Methods of modules that a class may override; the adapted layer calls the override. */
const MODULE_METHODS: readonly (string | symbol)[] = [
  "constructor",
  "forward",
  "train",
  "ownParameters",
  "ownState",
  "beforeLoad",
  "to",
  "dispose",
];

/** Adapter options that some layers do not support. */
type RequestedOptions = Pick<AdapterOptions, "useDora" | "loraBias" | "bias" | "loraDropout">;

/**
 * Throws `ERR_OPTION`, with path and class, for a layer of a user-defined class that cannot be adapted; `ERR_DTYPE` if
 * its weight is not f32.
 */
export function checkOwnClasses(
  where: string,
  layers: Iterable<readonly [path: string, layer: Module]>,
  { loraDropout: dropout, useDora, loraBias, bias }: RequestedOptions,
): void {
  for (const [path, layer] of layers) {
    if (layer instanceof MultiheadAttention && (useDora || loraBias || bias !== "none"))
      throw createRefusal(
        ADAPTER_REFUSALS.attention,
        where,
        `${path}, ${useDora ? "useDora" : loraBias ? "loraBias" : `bias ${bias}`}`,
      );
    const fault = isInPlace(layer)
      ? findDropoutFault(layer, dropout)
      : layer instanceof LoRALayer || isStandard(layer)
        ? undefined
        : (findFieldsFault(layer) ??
          findNamesFault(layer) ??
          findForwardFault(layer) ??
          findDropoutFault(layer, dropout));
    if (fault === undefined) continue;
    const { refusal, found, code } = fault;
    const what = `${path}, a ${layer.constructor.name}`;
    throw createRefusal(refusal, where, found === undefined ? what : `${what}: ${found}`, code);
  }
}

interface Fault {
  refusal: Refusal;
  found?: string;
  code?: "ERR_DTYPE";
}

function findDropoutFault(layer: Module, dropout: number): Fault | undefined {
  return dropout > 0 && hasOwnForward(layer) ? { refusal: ADAPTER_REFUSALS.ownForwardDropout } : undefined;
}

/** Finds an object that is not extensible, or a weight or bias that is not a plain writable field of the usual shape. */
function findFieldsFault(layer: Module): Fault | undefined {
  if (!Object.isExtensible(layer)) return { refusal: ADAPTER_REFUSALS.ownFrozen };
  const refusal = ADAPTER_REFUSALS.ownWeight;
  const { names = { weight: "weight", bias: "bias" }, shape: shapeOf } = findKind(layer);
  for (const name of [names.weight, names.bias]) {
    const field = Object.getOwnPropertyDescriptor(layer, name);
    if (name === names.bias && (field === undefined || field.value === null)) continue;
    if (field?.get !== undefined || field?.writable !== true || !isTensor(field.value))
      return { refusal, found: name };
  }
  const { shape, dtype } = (layer as unknown as Record<string, Tensor>)[names.weight] as Tensor;
  const expected = shapeOf(layer);
  if (shape.join() !== expected.join())
    return { refusal, found: `${names.weight} [${shape.join(", ")}] instead of [${expected.join(", ")}]` };
  return dtype !== "f32" && hasOwnForward(layer)
    ? { refusal: ADAPTER_REFUSALS.ownForwardDtype, found: dtype, code: "ERR_DTYPE" }
    : undefined;
}

/** Finds properties whose names clash with fields or methods of low-rank layers. */
function findNamesFault(layer: Module): Fault | undefined {
  const kind = findKind(layer).Base.prototype as object;
  const names = new Set(Reflect.ownKeys(layer));
  const onObject = MODULE_METHODS.find((name) => name !== "forward" && names.has(name));
  for (let prototype = readPrototype(layer); prototype !== kind; prototype = readPrototype(prototype))
    for (const name of Reflect.ownKeys(prototype)) names.add(name);
  const adapting = resolveClass(layer).prototype as object;
  const reserved = [
    ...LORA_FIELDS,
    ...Reflect.ownKeys(adapting),
    ...Reflect.ownKeys(readPrototype(adapting)),
  ].filter((name) => !MODULE_METHODS.includes(name));
  const clash = onObject ?? reserved.find((name) => names.has(name));
  return clash === undefined ? undefined : { refusal: ADAPTER_REFUSALS.ownName, found: String(clash) };
}

function findForwardFault(layer: Module): Fault | undefined {
  const forward = Object.getOwnPropertyDescriptor(layer, "forward");
  if (forward === undefined) return undefined;
  const plain = typeof forward.value === "function" && forward.configurable === true;
  return plain && !wasReassigned(layer) ? undefined : { refusal: ADAPTER_REFUSALS.ownForwardProperty };
}

function readPrototype(object: object): object {
  return Object.getPrototypeOf(object) as object;
}
