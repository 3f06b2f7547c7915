/** Distinguishes layers of this package's classes from user-defined layers. */

const fieldsOf = new Map<object, ReadonlySet<PropertyKey>>();

/** Fields that the mixin `LoRALayer` adds. */
export const LORA_FIELDS = [
  "adapters",
  "active",
  "mergeWeights",
  "byHand",
  "unmergedWeight",
  "replaced",
  "squaredNorms",
] as const;

/** Registers a class of this package and the fields of its instances. */
export function registerStandard(Class: Function, fields: readonly string[]): void {
  fieldsOf.set(Class.prototype as object, new Set<PropertyKey>(["training", ...fields]));
}

/** Returns the names of the fields that `layer` has in addition to its registered class's. */
function listExtraFields(layer: object): string[] {
  const known = fieldsOf.get(Object.getPrototypeOf(layer) as object) ?? new Set();
  return Reflect.ownKeys(layer)
    .filter((key) => {
      const { get, set } = Object.getOwnPropertyDescriptor(layer, key) as PropertyDescriptor;
      return !known.has(key) || get !== undefined || set !== undefined;
    })
    .map(String);
}

/** Whether `layer` has a class of this package and no added fields, so that another object can replace it. */
export function isStandard(layer: object): boolean {
  return fieldsOf.has(Object.getPrototypeOf(layer) as object) && listExtraFields(layer).length === 0;
}

/** Describes a user-defined layer in messages: its class, or the fields added to a class of this package. */
export function describeOwn(layer: object): string {
  const { name } = layer.constructor;
  const known = fieldsOf.has(Object.getPrototypeOf(layer) as object);
  return known ? `a ${name} with ${listExtraFields(layer).join(", ")}` : `a ${name}`;
}
