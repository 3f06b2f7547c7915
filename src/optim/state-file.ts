/**
 * An optimizer's state as a safetensors file: tensors `INDEX.NAME`, with parameters counted over all groups; the metadata holds the
 * kind of optimizer, the number of updates of each parameter, and the groups' options.
 */
import { call, type WeightsFile } from "../native/binding.js";
import { LowrankError } from "../errors.js";
import { mapTensor, readWeights, save } from "../files/safetensors.js";
import type { Tensor } from "../tensor/tensor.js";
import type { OptimizerState, ParameterState } from "./optimizer.js";

/** The key of the metadata. */
const KEY = "lowrank.optimizer";
const VERSION = 1;

/** The state of each parameter of a group: shapes by name. */
type States = readonly Readonly<Record<string, readonly number[]>>[];

interface Description {
  version: number;
  kind: string;
  updates: number[];
  groups: { params: number; options: Record<string, unknown> }[];
}

/** Returns the state's tensors by `INDEX.NAME`, and the number of updates of each parameter. */
export function flattenState({ state, paramGroups }: OptimizerState<object>): {
  tensors: Record<string, Tensor>;
  updates: number[];
} {
  const tensors: Record<string, Tensor> = {};
  const updates = paramGroups.flatMap(({ params }) => params).map((place) => state[place]?.step ?? 0);
  for (const [place, parts] of Object.entries(state)) {
    for (const [name, value] of Object.entries(parts))
      if (typeof value !== "number") tensors[`${place}.${name}`] = value;
  }
  return { tensors, updates };
}

/** Writes a state atomically, and disposes its tensors. Throws `ERR_WRITE`. */
export async function writeState(path: string, kind: string, state: OptimizerState<object>): Promise<void> {
  const { tensors, updates } = flattenState(state);
  const description: Description = {
    version: VERSION,
    kind,
    updates,
    groups: state.paramGroups.map(({ params, ...options }) => ({ params: params.length, options })),
  };
  try {
    await save(path, tensors, { metadata: { [KEY]: JSON.stringify(description) } });
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose();
  }
}

/** The expected optimizer of a file: its kind, each group's options, and the states of its parameters. */
export interface Expected {
  kind: string;
  groups: readonly { options: Record<string, unknown>; states: States }[];
}

/**
 * Reads a state that matches `expected`. The caller disposes its tensors. Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`;
 * `ERR_UNMATCHED_KEY` for another optimizer, `ERR_SHAPE_MISMATCH` for other parameters.
 */
export function readState(path: string, expected: Expected): OptimizerState<Record<string, unknown>> {
  const file = readWeights(path);
  const { updates, groups } = parseDescription(path, file, expected);
  const states = expected.groups.flatMap((group) => group.states);
  const wanted = new Map<string, { place: number; name: string }>();
  for (const [place, steps] of updates.entries()) {
    if (steps === 0) continue;
    for (const name of Object.keys(states[place] ?? {})) wanted.set(`${place}.${name}`, { place, name });
  }
  const names = file.names();
  const missing = [...wanted.keys()].filter((key) => !names.includes(key));
  const unexpected = names.filter((key) => !wanted.has(key));
  if (missing.length + unexpected.length > 0) {
    const parts = [
      missing.length > 0 ? `missing: ${listSome(missing)}` : "",
      unexpected.length > 0 ? `unexpected: ${listSome(unexpected)}` : "",
    ];
    throw new LowrankError("ERR_UNMATCHED_KEY", `${path}: ${parts.filter(Boolean).join("; ")}`);
  }
  for (const [key, { place, name }] of wanted) {
    const { shape, dtype } = call(() => file.info(key));
    const stateShape = states[place]?.[name] ?? [];
    if (shape.join() === stateShape.join() && dtype === "f32") continue;
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `${path}: ${key} is ${dtype} [${shape.join(", ")}], and parameter ${place} f32 [${stateShape.join(", ")}]`,
    );
  }
  const state: Record<number, ParameterState> = {};
  for (const [key, { place, name }] of wanted)
    (state[place] ??= { step: updates[place] as number })[name] = mapTensor(file, key, "cpu");
  let place = 0;
  const paramGroups = groups.map(({ params, options }) => ({
    ...options,
    params: Array.from({ length: params }, () => place++),
  }));
  return { state, paramGroups };
}

/** Parses and checks the description in a file's metadata. */
function parseDescription(path: string, file: WeightsFile, { kind, groups }: Expected): Description {
  const wrong = (what: string): never => {
    throw new LowrankError("ERR_FILE_FORMAT", `${path}: ${what}`);
  };
  const text = file.metadata()[KEY];
  if (text === undefined) return wrong("contains no optimizer state written by optimizer.save()");
  let found: Partial<Description> = {};
  try {
    found = JSON.parse(text) as Partial<Description>;
  } catch (error) {
    wrong(`${KEY} in the metadata is not JSON: ${(error as Error).message}`);
  }
  if (found.version !== VERSION)
    wrong(`the state is of version ${String(found.version)}, and ${VERSION} is read`);
  if (found.kind !== kind) {
    throw new LowrankError(
      "ERR_UNMATCHED_KEY",
      `${path}: the state is of ${String(found.kind)}, but the optimizer is ${kind}`,
    );
  }
  const count = groups.reduce((n, { states }) => n + states.length, 0);
  const sizes = (list: readonly number[]): string => `${list.length} groups of ${list.join(", ")} parameters`;
  const [expected, given] = [
    groups.map(({ states }) => states.length),
    (Array.isArray(found.groups) ? found.groups : []).map((group) => group?.params),
  ];
  if (expected.join() !== given.join()) {
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `${path}: the state is of ${sizes(given)}, but the optimizer of ${sizes(expected)}`,
    );
  }
  const { updates } = found;
  const counts = Array.isArray(updates) && updates.length === count;
  if (!counts || !updates.every((n) => Number.isSafeInteger(n) && n >= 0))
    wrong(`${KEY} in the metadata has no count of updates for each of ${count} parameters`);
  for (const [i, group] of groups.entries()) {
    const options = found.groups?.[i]?.options ?? {};
    const same = Object.keys(group.options).every((name) => matchesType(options[name], group.options[name]));
    if (!same || Object.keys(options).length !== Object.keys(group.options).length)
      wrong(`the options of group ${i} are ${JSON.stringify(options)}`);
  }
  return found as Description;
}

/** Whether an option's value has the type of the optimizer's option. */
function matchesType(given: unknown, expected: unknown): boolean {
  if (Array.isArray(expected))
    return Array.isArray(given) && expected.every((item, i) => matchesType(given[i], item));
  return typeof given === typeof expected && (typeof given !== "number" || Number.isFinite(given));
}

function listSome(names: readonly string[]): string {
  return names.length <= 4
    ? names.join(", ")
    : `${names.slice(0, 4).join(", ")} and ${names.length - 4} more`;
}
