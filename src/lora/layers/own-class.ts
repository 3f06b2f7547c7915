/**
 * Low-rank layers of user-defined classes, or of standard classes with added fields. A new object would lack private
 * fields, closures and references from elsewhere, so the object is adapted in place: a prototype that adds adapters is
 * inserted between the object and its class. Removing the adapters removes that prototype.
 */
import {
  Conv1d as BaseConv1d,
  Conv2d as BaseConv2d,
  Conv3d as BaseConv3d,
  type ConvNd,
} from "../../nn/conv.js";
import { Embedding as BaseEmbedding } from "../../nn/embedding.js";
import { Linear as BaseLinear } from "../../nn/linear.js";
import type { Module } from "../../nn/module.js";
import { MultiheadAttention } from "../../nn/multihead-attention.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { createRefusal } from "../../refusals/refusal.js";
import type { Tensor } from "../../tensor/tensor.js";
import { listAdapterParameters } from "./adapter-methods.js";
import type { AnyLoRALayer } from "./any-layer.js";
import { Conv1d, Conv2d, Conv3d } from "./conv.js";
import { Embedding } from "./embedding.js";
import { LoRALayer, type LayerClass } from "./layer.js";
import { Linear } from "./linear.js";
import { runWithBaseTensors } from "./merge-methods.js";
import { computeOverWeight } from "./over-weight.js";
import { describeOwn, LORA_FIELDS } from "./standard.js";

type Forward = (...inputs: unknown[]) => unknown;
type Layer = Module & { weight: Tensor; bias?: Tensor | null | undefined; forward: Forward };

/** A kind of layer that can be adapted in place. */
interface Kind {
  Base: abstract new (...args: never[]) => Module;
  /** The prototype with the low-rank layer's methods, and the names of the methods to copy from it. */
  from: object;
  methods: readonly (keyof Linear)[];
  /** Returns the expected shape of the weight. */
  shape(layer: Module): readonly number[];
  /** The field names of the weight and the bias, if not `weight` and `bias`. */
  names?: { weight: string; bias: string };
  /** Additional getters of the low-rank layer. */
  getters?: Record<string, (layer: Module) => unknown>;
}

const LINEAR: Kind = {
  Base: BaseLinear,
  from: Linear.prototype,
  methods: ["outputDim", "createAdapter", "computeStoredShape", "listWindows"],
  shape: (layer) => {
    const { inFeatures, outFeatures, fanInFanOut } = layer as BaseLinear;
    return fanInFanOut ? [inFeatures, outFeatures] : [outFeatures, inFeatures];
  },
};

const EMBEDDING: Kind = {
  Base: BaseEmbedding,
  from: Embedding.prototype,
  methods: ["nameInMemory", "nameOnDisk", "outputDim", "createAdapter", "computeStoredShape"],
  shape: (layer) => [(layer as BaseEmbedding).numEmbeddings, (layer as BaseEmbedding).embeddingDim],
};

const CONVOLUTIONS: Kind[] = (
  [
    [BaseConv1d, Conv1d],
    [BaseConv2d, Conv2d],
    [BaseConv3d, Conv3d],
  ] as const
).map(([Base, Low]) => ({
  Base,
  from: Object.getPrototypeOf(Low.prototype) as object,
  methods: [
    "createAdapter",
    "computeFactors",
    "buildPlainAdapter",
    "computeStoredShape",
    "computeBroadcastShape",
  ],
  shape: (layer) => {
    const { inChannels, outChannels, kernelSize, geometry } = layer as ConvNd;
    return [outChannels, inChannels / geometry.groups, ...kernelSize];
  },
}));

/** The projections of query, key and value in one weight. PEFT also adds their adapter to the weight before forward. */
const ATTENTION: Kind = {
  Base: MultiheadAttention,
  from: Linear.prototype,
  methods: ["outputDim", "createAdapter", "computeStoredShape"],
  shape: (layer) => measureProjection(layer).toReversed(),
  names: { weight: "in_proj_weight", bias: "in_proj_bias" },
  getters: {
    inFeatures: (layer) => measureProjection(layer)[0],
    outFeatures: (layer) => measureProjection(layer)[1],
  },
};

function measureProjection(layer: Module): [inFeatures: number, outFeatures: number] {
  const { embedDim } = layer as MultiheadAttention;
  return [embedDim, 3 * embedDim];
}

const KINDS: readonly Kind[] = [LINEAR, EMBEDDING, ...CONVOLUTIONS, ATTENTION];

type AdaptingClass = new (layer: Module) => Module;

/** The inserted classes, keyed by the prototype of the original class, for both kinds of forward. */
const classes = {
  overWeight: new WeakMap<object, AdaptingClass>(),
  low: new WeakMap<object, AdaptingClass>(),
};
/** The original class's prototype, keyed by the inserted prototype. */
const classOf = new WeakMap<object, Layer>();
/** `forward` properties set on the objects themselves when they were last adapted. */
const ownForwards = new WeakMap<Module, PropertyDescriptor>();
/** Objects whose `forward` was assigned while they were adapted; it may call the adapted forward. */
const reassigned = new WeakSet<Module>();

/** Whether `layer` is adapted in place. */
export function isInPlace(layer: Module): boolean {
  return classOf.has(Object.getPrototypeOf(layer) as object);
}

/** Whether the layer's forward differs from the forward of its kind. */
export function hasOwnForward(layer: Module): boolean {
  const original = classOf.get(Object.getPrototypeOf(layer) as object);
  if (original !== undefined)
    return classes.overWeight.get(original)?.prototype === Object.getPrototypeOf(layer);
  const { Base, names } = findKind(layer);
  return names !== undefined || (layer as Layer).forward !== (Base.prototype as Layer).forward;
}

/** Whether `forward` was assigned while the layer was adapted and is still set. */
export function wasReassigned(layer: Module): boolean {
  return reassigned.has(layer) && Object.hasOwn(layer, "forward");
}

/** Adapts a layer in place. Requires a previous `checkOwnClasses`. */
export function adaptInPlace(layer: Module): AnyLoRALayer {
  const Adapting = resolveClass(layer);
  const forward = Object.getOwnPropertyDescriptor(layer, "forward");
  if (forward === undefined) ownForwards.delete(layer);
  else {
    ownForwards.set(layer, forward);
    delete (layer as { forward?: unknown }).forward;
  }
  // The constructor returns the object itself, with the fields of low-rank layers.
  const target = new Adapting(layer) as AnyLoRALayer;
  Object.setPrototypeOf(layer, Adapting.prototype as object);
  target.mergeWeights = false;
  target.replaced = { module: layer };
  return target;
}

/** Reverts `adaptInPlace`. */
export function restoreClass(layer: Module): void {
  const original = classOf.get(Object.getPrototypeOf(layer) as object);
  if (original === undefined) return;
  for (const field of LORA_FIELDS) delete (layer as unknown as Record<string, unknown>)[field];
  Object.setPrototypeOf(layer, original);
  const forward = ownForwards.get(layer);
  if (Object.hasOwn(layer, "forward")) reassigned.add(layer);
  else if (forward !== undefined) Object.defineProperty(layer, "forward", forward);
}

/** Records whether a module is adapted in place, and returns a function that restores that state. */
export function snapshotClass(module: Module): () => void {
  const prototype = Object.getPrototypeOf(module) as object;
  if (!classOf.has(prototype)) return () => restoreClass(module);
  const names = ["forward", ...LORA_FIELDS];
  const fields = names.map((name) => [name, Object.getOwnPropertyDescriptor(module, name)] as const);
  return () => {
    Object.setPrototypeOf(module, prototype);
    for (const [name, field] of fields) {
      if (field === undefined) delete (module as unknown as Record<string, unknown>)[name];
      else Object.defineProperty(module, name, field);
    }
  };
}

/** Returns the class to insert between `layer` and its class; makes it on first use. */
export function resolveClass(layer: Module): AdaptingClass {
  const original = Object.getPrototypeOf(layer) as Layer;
  const overWeight = hasOwnForward(layer);
  const known = overWeight ? classes.overWeight : classes.low;
  let Adapting = known.get(original);
  if (Adapting === undefined) {
    Adapting = makeClass(original);
    const kind = findKind(layer);
    for (const name of overWeight ? kind.methods : [...kind.methods, "forward"]) {
      const method = Object.getOwnPropertyDescriptor(kind.from, name) as PropertyDescriptor;
      Object.defineProperty(Adapting.prototype, name, method);
    }
    defineGetters(Adapting.prototype as object, kind);
    if (overWeight) Object.defineProperty(Adapting.prototype, "forward", { value: makeForward(original) });
    classOf.set(Adapting.prototype as object, original);
    known.set(original, Adapting);
  }
  return Adapting;
}

/** Defines the names that low-rank layers expect as accessors of the kind's fields. */
function defineGetters(prototype: object, { names, getters = {} }: Kind): void {
  for (const [name, field] of Object.entries(names ?? {})) {
    Object.defineProperty(prototype, name, {
      get(this: Record<string, unknown>) {
        return this[field];
      },
      set(this: Record<string, unknown>, value: unknown) {
        this[field] = value;
      },
    });
  }
  for (const [name, getter] of Object.entries(getters)) {
    Object.defineProperty(prototype, name, {
      get(this: Module) {
        return getter(this);
      },
    });
  }
}

function makeClass(original: Layer): AdaptingClass {
  const Standing = function (layer: Module) {
    return layer;
  } as unknown as LayerClass<Layer>;
  Object.defineProperty(Standing, "prototype", { value: original });
  abstract class Adapting extends LoRALayer(Standing) {
    override toPlain(): Module {
      throw createRefusal(ADAPTER_REFUSALS.ownCopy, "modulesToSave", describeOwn(this));
    }

    override toUnloaded(): Module {
      this.unmerge();
      restoreClass(this);
      return this;
    }

    override *ownParameters(): IterableIterator<[string, Tensor]> {
      yield* runWithBaseTensors(this, () => [...original.ownParameters.call(this)]);
      yield* listAdapterParameters(this);
    }

    override *ownState(): IterableIterator<[string, Tensor]> {
      yield* runWithBaseTensors(this, () => [...original.ownState.call(this)]);
    }
  }
  // `layer.constructor` must return the original class.
  Object.defineProperty(Adapting.prototype, "constructor", { value: original.constructor });
  return Adapting as unknown as AdaptingClass;
}

function makeForward(original: Layer): Forward {
  return function (this: Layer, ...inputs: unknown[]): unknown {
    const forward = (ownForwards.get(this)?.value ?? original.forward) as Forward;
    const run = (): unknown => forward.apply(this, inputs);
    return isInPlace(this) ? computeOverWeight(this as unknown as AnyLoRALayer, run) : run();
  };
}

export function findKind(layer: Module): Kind {
  return KINDS.find(({ Base }) => layer instanceof Base) as Kind;
}
