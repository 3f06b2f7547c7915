/** What a path holds: a model, an adapter or data. */
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";

import { flag, listOf, oneOf, options as known, refuse, text, whole } from "../argument.js";
import { DATA_FORMATS, type DataFormat, TRAIN_ON, type TrainOn } from "../data/format.js";
import { closeData, readData } from "../data/read.js";
import { STANDARD_INPUT } from "../data/source.js";
import { LowrankError } from "../errors.js";
import { isGguf } from "../gguf.js";
import { hubName } from "../hub/name.js";
import type { DownloadProgress } from "../hub/settings.js";
import { readTemplateFile } from "../models/chat-template-files.js";
import { defaultModel } from "../models/default.js";
import { loadLocated } from "../models/load.js";
import { locate, type Located } from "../models/locate.js";
import { PretrainedModel } from "../models/pretrained.js";
import { type InspectedAdapter, inspectAdapter, isAdapter } from "./adapter.js";
import { inspectData, type InspectedData } from "./data.js";
import { inspectModel, type InspectedModel } from "./model.js";
import { classesIn } from "../train/prepare.js";
import { TRAINING_REFUSALS } from "../refusals/training.js";
import { refused } from "../refusals/refusal.js";

/** What was found at a path. */
export type Inspected = InspectedModel | InspectedAdapter | InspectedData;

/** What `inspect` takes besides the path. */
export interface InspectOptions {
  /**
   * The model that an adapter is to fit, or whose tokens data is trained on: a folder, a file, a name at a hub, or one
   * that is loaded. Of data the embedded one unless given.
   */
  model?: string | PretrainedModel | undefined;
  /** A branch, a tag or a commit of a hub's model. */
  revision?: string | undefined;
  /** Take a hub's model out of the cache, and ask no server. */
  offline?: boolean | undefined;
  /** Of data whose name doesn't say it. */
  dataFormat?: DataFormat | undefined;
  /** What is spoken, by its code or its English name: of rows of speech, where the model knows several languages. */
  language?: string | undefined;
  /** A file with the chat template that messages are rendered by. */
  chatTemplate?: string | undefined;
  /** What of rows with prompts or messages is trained on; `completion`. */
  trainOn?: TrainOn | undefined;
  /** Tokens that a row of data may have; 512, and never over the model's longest text. */
  maxLength?: number | undefined;
  /** How many rows of data are shown; 3. */
  rows?: number | undefined;
  /** Ends it, with its reason. */
  signal?: AbortSignal | undefined;
  /** Told of how far a model's download has come. */
  onProgress?: ((progress: DownloadProgress) => void) | undefined;
}

const OPTIONS = [
  "model",
  "revision",
  "offline",
  "dataFormat",
  "language",
  "chatTemplate",
  "trainOn",
  "maxLength",
  "rows",
  "signal",
  "onProgress",
] as const satisfies (keyof InspectOptions)[];

/**
 * Reports what a path holds, as `lowrank inspect` prints it. Several paths are data files, which are read in sequence.
 * Models and adapters are judged by their headers, without reading weights; data is read whole. `fits` says whether a
 * model can be loaded, and `fit` whether an adapter fits the given model; each lists the problems.
 *
 * Throws `ERR_FILE_NOT_FOUND` and `ERR_FILE_FORMAT` where there is nothing that is known, `ERR_OPTION`; of data what
 * `finetune` would refuse; of a hub's model `ERR_HUB`, `ERR_WRITE`; the signal's reason.
 */
export async function inspect(
  path: string | readonly string[],
  given: InspectOptions = {},
): Promise<Inspected> {
  const options = checked(path, given);
  const { signal } = options;
  signal?.throwIfAborted();
  if (typeof path !== "string")
    return path.length === 1 ? inspect(path[0] as string, given) : dataAt(path, options);
  if (path === STANDARD_INPUT) return dataAt(path, options);
  if (!existsSync(path)) {
    if (hubName(path) !== undefined) return inspectModel(await locate(path, options));
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${path}: there is no such file or folder`);
  }
  const folder = statSync(path).isDirectory();
  if (!folder && isGguf(path)) return inspectModel(await locate(path, { signal }));
  if (folder || path.endsWith(".safetensors")) {
    if (isAdapter(path)) return inspectAdapter(path, await modelAt(options));
    if (folder && !existsSync(join(path, "config.json"))) {
      const what = "there is neither a config.json, as a model has, nor an adapter_config.json";
      throw new LowrankError("ERR_FILE_NOT_FOUND", `${path}: ${what}`);
    }
    return inspectModel(await locate(path, { signal }));
  }
  return dataAt(path, options);
}

function checked(path: string | readonly string[], given: InspectOptions): InspectOptions {
  const where = "inspect";
  const paths = Array.isArray(path) ? listOf(where, "path", path, text) : [text(where, "path", path)];
  if (paths.length === 0 || paths.includes(""))
    refuse(where, "path", "the name of a file or a folder, or an array of data files", path);
  const options = known(where, given, OPTIONS);
  const { model, offline, dataFormat, trainOn, maxLength, rows, signal } = options;
  if (
    model !== undefined &&
    !(model instanceof PretrainedModel) &&
    (typeof model !== "string" || model === "")
  )
    refuse(where, "model", "a folder, a name at a hub or a loaded model", model);
  for (const name of ["revision", "chatTemplate", "language"] as const)
    if (options[name] !== undefined && text(where, name, options[name]) === "")
      refuse(where, name, "no empty text", "");
  if (offline !== undefined) flag(where, "offline", offline);
  if (dataFormat !== undefined) oneOf(where, "dataFormat", dataFormat, DATA_FORMATS);
  if (trainOn !== undefined) oneOf(where, "trainOn", trainOn, TRAIN_ON);
  if (maxLength !== undefined) whole(where, "maxLength", maxLength, 2);
  if (rows !== undefined) whole(where, "rows", rows);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    refuse(where, "signal", "an AbortSignal", signal);
  return options;
}

/** The model that is named; of a loaded one the folder that it came from. */
async function modelAt({ model, ...options }: InspectOptions): Promise<Located | undefined> {
  if (model === undefined) return undefined;
  if (typeof model === "string") return locate(model, options);
  const { folder, source = folder, revision } = model;
  if (folder !== undefined) return { path: folder, source: source as string, revision };
  throw new LowrankError(
    "ERR_OPTION",
    "inspect: the model came from no folder, whose headers could be read; save it, and name that",
  );
}

/** Data, as a run would train a model on it. */
async function dataAt(path: string | readonly string[], options: InspectOptions): Promise<InspectedData> {
  const { model: named = defaultModel(), signal, trainOn, language } = options;
  const { maxLength = 512, rows: shown = 3 } = options;
  const data = await readData(path, { format: options.dataFormat, signal });
  try {
    const loaded = named instanceof PretrainedModel;
    const { chatTemplate } = options;
    if (loaded && chatTemplate !== undefined) throw refused(TRAINING_REFUSALS.templateOfLoaded, "inspect");
    const template = chatTemplate === undefined ? undefined : readTemplateFile(chatTemplate);
    const located = loaded ? undefined : await locate(named, options);
    const labels = classesIn({ train: data, held: undefined }, located?.path ?? (named as PretrainedModel));
    const model: PretrainedModel =
      located === undefined
        ? (named as PretrainedModel)
        : await loadLocated(located, {
            device: "meta:cpu",
            signal,
            onNotice: () => {},
            // As a run loads it.
            ...(labels !== undefined && { task: "sequence-classification", numLabels: labels.length }),
          });
    try {
      if (template !== undefined) model.tokenizer?.setChatTemplate(template.text, template.where);
      const asked = { maxLength, shown, labels, trainOn, language, chatTemplate, signal };
      return await inspectData(data, model, asked);
    } finally {
      if (!loaded) model.dispose();
    }
  } finally {
    closeData(data);
  }
}
