/** Warns about options that were given and have no effect on the run. */
import { listLoraLayers } from "../lora/adapter/registry.js";
import { readGpuDetails } from "../device/device.js";
import type { PretrainedModel } from "../models/pretrained.js";
import { SpeechToText } from "../models/speech-to-text.js";
import { optionName, optionSetting } from "../arguments/option-name.js";
import type { Settings } from "./settings.js";

/** The maximum number of names in a warning. */
const MOST_NAMES = 5;

/** Returns a warning that `option`, set to `value`, has no effect. */
export function describeNoEffect(option: string, value: unknown, why: string): string {
  return `${optionSetting(option, value)} has no effect: ${why}`;
}

/** Reports a language given for a model that takes no speech. */
export function reportUnusedLanguage(model: PretrainedModel, language: string | undefined): string[] {
  if (language === undefined || model instanceof SpeechToText) return [];
  return [describeNoEffect("language", language, "the model does not transcribe speech")];
}

/** Reports a chat template if no conversation was rendered. */
export function reportUnusedTemplate(model: PretrainedModel, chatTemplate: string | undefined): string[] {
  if (chatTemplate === undefined || model.tokenizer?.hasRendered === true) return [];
  return [describeNoEffect("chatTemplate", chatTemplate, "the data holds no messages")];
}

/** Returns all warnings about a run's options, once its adapter is injected and its steps are counted. */
export function reportWithoutEffect(model: PretrainedModel, settings: Settings, steps: number): string[] {
  const { warmup, language, chatTemplate } = settings;
  const warnings = [...reportUnusedLanguage(model, language), ...reportUnusedTemplate(model, chatTemplate)];
  if (warmup !== undefined && warmup >= steps && warmup > 0)
    warnings.push(
      `${optionSetting("warmup", warmup)} reaches to the last of ${steps} steps or beyond: the learning rate never reaches ${settings.optimizer.lr}`,
    );
  if (settings.threads !== undefined && model.device.startsWith("gpu"))
    warnings.push(describeNoEffect("threads", settings.threads, `the run trains on ${model.device}`));
  if (settings.offloadWeights && settings.devices.length === 1 && model.device === "cpu")
    warnings.push(
      describeNoEffect("offloadWeights", true, "the run is on the cpu, which reads the host's memory"),
    );
  return [...warnings, ...reportUnusedPrecision(model, settings), ...reportExcessRanks(model, settings)];
}

/** Reports a precision of products that the device does not support. */
function reportUnusedPrecision(
  { device }: PretrainedModel,
  { askedPrecision: precision }: Settings,
): string[] {
  const cpu = device === "cpu" || device === "meta:cpu";
  if (precision === "f16" && cpu)
    return [
      describeNoEffect(
        "matmulPrecision",
        precision,
        "only a GPU multiplies in f16, and the run is on the cpu",
      ),
    ];
  const gpu = cpu || precision !== "f16" ? undefined : readGpuDetails(device);
  if (gpu?.f16 === false)
    return [describeNoEffect("matmulPrecision", precision, `the GPU ${gpu.device} does not compute in f16`)];
  if (precision === "bf16" && !cpu)
    return [
      describeNoEffect(
        "matmulPrecision",
        precision,
        `only the cpu multiplies in bf16, and the run is on ${device}`,
      ),
    ];
  return [];
}

/** Reports layers with a rank above their width, which limits the rank of the product of A and B. */
function reportExcessRanks(model: PretrainedModel, { lora }: Settings): string[] {
  const name = lora.name ?? "default";
  const excess = [...listLoraLayers(model)].flatMap(([path, layer]) => {
    const rank = layer.adapters.get(name)?.r;
    const [out = 0, ...rest] = (layer as unknown as { weight: { shape: readonly number[] } }).weight.shape;
    const width = Math.min(
      out,
      rest.reduce((product, size) => product * size, 1),
    );
    return rank !== undefined && rank > width ? [{ path, rank, width }] : [];
  });
  const [first] = excess;
  if (first === undefined) return [];
  const names = [...new Set(excess.map(({ path }) => path.split(".").at(-1) as string))];
  const listed = names.slice(0, MOST_NAMES).join(", ") + (names.length > MOST_NAMES ? ", …" : "");
  const least = Math.min(...excess.map(({ width }) => width));
  const layers = excess.length === 1 ? "1 layer" : `${excess.length} layers`;
  return [
    `${optionName("r")} is above the width of ${layers} (${listed}): ${first.rank} where ${least} is the most that has an effect; a lower rank takes less memory`,
  ];
}
