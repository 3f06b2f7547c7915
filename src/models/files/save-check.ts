/**
 * Checks a model against its configuration, because a saved folder is loaded as the model that its configuration
 * describes.
 */
import { LowrankError } from "../../errors.js";
import { LoRALayer } from "../../lora/layers/layer.js";
import { isStandard } from "../../lora/layers/standard.js";
import type { Module } from "../../nn/module.js";
import { readRandomState, setRandomState } from "../../tensor/random.js";
import { MODEL_REFUSALS } from "../../refusals/models.js";
import { createRefusal } from "../../refusals/refusal.js";
import type { PretrainedModel } from "../pretrained.js";

type Made = {
  fromConfig?: (config: object, options: { device: "meta:cpu" }) => PretrainedModel;
};

/**
 * Rejects a model with modules, tensors or forward functions that its configuration does not describe, such as wrappers
 * around layers. Throws `ERR_OPTION`, naming the first difference.
 */
export function checkAsConfigured(model: PretrainedModel): void {
  const likeness = buildFromConfig(model);
  if (likeness === undefined) return;
  try {
    const found = compareModules(model, likeness) ?? compareTensors(model, likeness);
    if (found !== undefined) throw createRefusal(MODEL_REFUSALS.savedOwn, "saveModel", found);
  } finally {
    likeness.dispose();
  }
}

/** Builds the model that the configuration describes, without values; undefined where its class cannot. */
function buildFromConfig(model: PretrainedModel): PretrainedModel | undefined {
  const random = readRandomState();
  try {
    return (model.constructor as Made).fromConfig?.(
      { ...model.toHubConfig(), ...model.listConfigChanges() },
      { device: "meta:cpu" },
    );
  } catch (error) {
    if (!(error instanceof LowrankError)) throw error;
    return undefined;
  } finally {
    setRandomState(random);
  }
}

function compareModules(model: Module, likeness: Module): string | undefined {
  const expected = new Map(likeness.namedModules());
  const found = new Map(model.namedModules());
  for (const [path, module] of found) {
    const counterpart = expected.get(path);
    const what = `${path || "the model"}, a ${module.constructor.name}`;
    if (counterpart === undefined || !hasForwardOf(module, counterpart)) return what;
  }
  for (const [path, module] of expected)
    if (!found.has(path)) return `${path}, a ${module.constructor.name}, is missing`;
  return undefined;
}

/** Whether a module has the forward of the expected one; a low-rank layer of rank 0 counts as a plain layer. */
function hasForwardOf(module: Module, expected: Module): boolean {
  if (module instanceof LoRALayer && isStandard(module)) return isStandard(expected);
  return (module.forward as unknown) === expected.forward;
}

function compareTensors(model: Module, likeness: Module): string | undefined {
  const [state, expectedState] = [model.stateDict(), likeness.stateDict()];
  for (const [name, { shape }] of Object.entries(state)) {
    const expected = expectedState[name]?.shape;
    if (expected === undefined) return name;
    if (expected.join() !== shape.join())
      return `${name} [${shape.join(", ")}] instead of [${expected.join(", ")}]`;
  }
  const missing = Object.keys(expectedState).find((name) => !(name in state));
  return missing === undefined ? undefined : `${missing} is missing`;
}
