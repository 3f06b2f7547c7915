/** Reasons for which trials run separately instead of side by side. */
import type { PretrainedModel } from "../../models/pretrained.js";
import { SpeechToText } from "../../models/speech-to-text.js";
import { Dropout } from "../../nn/dropout.js";
import { startsFromRows } from "../inject-with.js";
import type { Settings } from "../settings.js";

/** Returns why a trial cannot share its steps with others; undefined if it can. */
export function findReasonApart(model: PretrainedModel, settings: Settings): string | undefined {
  const { packing, lora } = settings;
  if (packing) return "packed rows have one adapter per sequence";
  if (startsFromRows(model, lora))
    return "the initialisation eva runs the base model over the rows of each trial";
  const drops = lora.loraDropout !== undefined && lora.loraDropout > 0;
  if (drops && (lora.useDora === true || model instanceof SpeechToText))
    return "dropout of these layers draws one mask for the whole batch";
  if (hasDropout(model)) return "the model itself has dropout, which draws one mask for the whole batch";
  return undefined;
}

/** Whether the base model itself drops values in training. */
function hasDropout(model: PretrainedModel): boolean {
  for (const [, module] of model.namedModules()) {
    if (module instanceof Dropout && module.p > 0) return true;
    const { dropout } = module as { dropout?: unknown };
    if (typeof dropout === "number" && dropout > 0) return true;
  }
  return false;
}
