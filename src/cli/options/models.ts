/** Selects and loads a command's model and adapters. */
import { join } from "node:path";
import type { Device } from "../../device/device.js";
import { LowrankError } from "../../errors.js";
import { findBaseOfAdapter } from "../../models/adapter-base.js";
import { readConfigFields } from "../../models/config-fields.js";
import { locateDefaultModel } from "../../models/default.js";
import type { CausalLM } from "../../models/causal-lm.js";
import type { LoadOptions } from "../../models/files/load.js";
import type { Quantization } from "../../models/quantization.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import type { WeightsFile } from "../../native/binding.js";
import type { StorageType } from "../../train/options.js";
import { notice, UsageError } from "../terminal/failure.js";
import { DownloadLine } from "./hub.js";

/** A model by its path or hub name, with the revision. */
interface NamedModel {
  model: string;
  revision: string | undefined;
}

/** Returns the given model, else the base model of the first adapter, else the embedded model. */
export function resolveModel({
  model,
  revision,
  adapters,
}: Pick<ModelFlags, "model" | "revision" | "adapters">): NamedModel {
  if (model !== undefined) return { model, revision };
  const adapter = adapters?.[0];
  if (adapter === undefined) return { model: locateDefaultModel(), revision };
  const base = findBaseOfAdapter(adapter);
  if (base.name === undefined) throw new UsageError(`${adapter} does not say its model: give --model`);
  if (base.model === undefined) {
    const places = base.places.length > 1 ? `, neither at ${base.places.join(" nor at ")}` : "";
    throw new UsageError(`${adapter} was made for ${base.name}, which is not here${places}: give --model`);
  }
  return { model: base.model, revision: revision ?? base.revision };
}

export interface LoadedModel {
  model: PretrainedModel;
  /** The name of the model. */
  name: string;
}

interface ModelFlags {
  model?: string | undefined;
  revision?: string | undefined;
  offline?: boolean | undefined;
  adapters?: readonly string[] | undefined;
  device?: string | undefined;
  dtype?: StorageType | undefined;
  quantize?: Quantization | undefined;
  /** A file with a chat template. */
  chatTemplate?: string | undefined;
  signal: AbortSignal;
}

/** Loads a model with its adapters, all active. Notices go to stderr. */
export async function load(options: ModelFlags): Promise<LoadedModel> {
  const { adapters = [], device = "auto", dtype, quantize, signal } = options;
  const { model: name, revision } = resolveModel(options);
  const [{ loadModel }, { readTemplateFile }, lora, { nameClasses, readLabels }, { openWeights }] =
    await Promise.all([
      import("../../models/files/load.js"),
      import("../../models/chat-template-files.js"),
      import("../../lora/index.js"),
      import("../../train/label-names.js"),
      import("../../files/safetensors.js"),
    ]);
  const template = options.chatTemplate === undefined ? undefined : readTemplateFile(options.chatTemplate);
  const line = new DownloadLine();
  const loadOptions: LoadOptions = {
    device: device as Device,
    revision,
    offline: options.offline,
    signal,
    onNotice: notice,
    onProgress: (progress) => line.show(progress),
  };
  if (dtype !== undefined) loadOptions.dtype = dtype;
  if (quantize !== undefined) loadOptions.quantize = quantize;
  const [first] = adapters;
  if (first !== undefined && isClassifier(first)) {
    loadOptions.task = "sequence-classification";
    loadOptions.numLabels = countClasses(openWeights(join(first, "adapter_model.safetensors")));
    // Suppresses the notice about a missing head, since the adapter contains one.
    loadOptions.onNotice = () => {};
  }
  const model: PretrainedModel = await loadModel(name, loadOptions).finally(() => line.end());
  if (template !== undefined) model.tokenizer?.setChatTemplate(template.text, template.where);
  if (first !== undefined) nameClasses(model, readLabels(first));
  const names = adapters.map((_, i) => (i === 0 ? "default" : `adapter-${i + 1}`));
  for (const [i, adapter] of adapters.entries()) {
    signal.throwIfAborted();
    await lora.loadAdapter(model, adapter, { name: names[i] ?? "default" });
  }
  if (names.length > 1) lora.setAdapter(model, names);
  return { model, name };
}

/** Whether an adapter was trained for classification. */
function isClassifier(adapter: string): boolean {
  return readConfigFields(join(adapter, "adapter_config.json"))?.readString("task_type") === "SEQ_CLS";
}

/** Returns the number of classes of an adapter's head. */
function countClasses(file: WeightsFile): number | undefined {
  const head = file.names().find((name) => /\.(classifier|classifier\.out_proj|score)\.weight$/.test(name));
  return head === undefined ? undefined : file.info(head).shape[0];
}

/** Like `load`, for a language model. Throws `ERR_UNSUPPORTED_MODEL` for other models. */
export async function loadLanguageModel(options: ModelFlags): Promise<{ model: CausalLM; name: string }> {
  const { model, name } = await load(options);
  const { CausalLM } = await import("../../models/causal-lm.js");
  if (model instanceof CausalLM) return { model, name };
  model.dispose();
  throw new LowrankError(
    "ERR_UNSUPPORTED_MODEL",
    `${name}: this model is not a language model; it cannot generate text`,
  );
}
