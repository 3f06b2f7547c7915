/** Describes the contents of a path: a model, an adapter or data. */
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";

import {
  checkFlag,
  checkList,
  checkChoice,
  checkKnownOptions,
  refuse,
  checkText,
  checkWhole,
} from "../arguments/check.js";
import {
  DATA_FORMATS,
  type DataFormat,
  PROMPT_FORMATS,
  type PromptFormat,
  TRAIN_ON,
  type TrainOn,
} from "../data/format.js";
import { closeData, readData } from "../data/read.js";
import { STANDARD_INPUT } from "../data/source/source.js";
import { LowrankError } from "../errors.js";
import { isGguf } from "../gguf/read.js";
import { parseHubName } from "../hub/name.js";
import type { DownloadProgress } from "../hub/settings.js";
import { readTemplateFile } from "../models/chat-template-files.js";
import { locateDefaultModel } from "../models/default.js";
import { loadLocated } from "../models/files/load.js";
import { locate, type Located } from "../models/files/locate.js";
import { PretrainedModel } from "../models/pretrained.js";
import { type InspectedAdapter, inspectAdapter, isAdapter } from "./adapter.js";
import { inspectData, type InspectedData } from "./data.js";
import { inspectModel, type InspectedModel } from "./model.js";
import { findClasses } from "../train/prepare.js";
import { TRAINING_REFUSALS } from "../refusals/training.js";
import { createRefusal } from "../refusals/refusal.js";

/** The result of `inspect`. */
export type Inspected = InspectedModel | InspectedAdapter | InspectedData;

/** The options of `inspect`. */
export interface InspectOptions {
  /**
   * The model to compare an adapter with, or to tokenise data for: a folder, a file, a name at a hub, or a loaded model.
   * For data the embedded model by default.
   */
  model?: string | PretrainedModel | undefined;
  /** A branch, a tag or a commit of a hub's model. */
  revision?: string | undefined;
  /** Use only the cache for a hub's model, without network access. */
  offline?: boolean | undefined;
  /** The format of data, if its name does not show it. */
  dataFormat?: DataFormat | undefined;
  /** The spoken language, by its code or its English name; required for speech if the model has several languages. */
  language?: string | undefined;
  /** A file with the chat template for rendering messages. */
  chatTemplate?: string | undefined;
  /** The trained tokens of rows with prompts or messages; `completion`. */
  trainOn?: TrainOn | undefined;
  /** Whether the chat template writes rows of prompt and completion; `auto`, if the model has a template. */
  promptFormat?: PromptFormat | undefined;
  /** The maximum number of tokens in a row of data; 512, limited to the model's maximum. */
  maxLength?: number | undefined;
  /** The number of rows of data to show; 3. */
  rows?: number | undefined;
  /** Aborts the call, with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Called with the progress of a model's download. */
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
  "promptFormat",
  "maxLength",
  "rows",
  "signal",
  "onProgress",
] as const satisfies (keyof InspectOptions)[];

/**
 * Describes the contents of a path, as `lowrank inspect` prints them. Several paths are data files, which are read in
 * sequence. Models and adapters are described by their headers, without reading weights; data is read completely. `fits`
 * says whether a model can be loaded, and `fit` whether an adapter fits the given model; each lists the problems.
 *
 * Throws `ERR_FILE_NOT_FOUND` and `ERR_FILE_FORMAT` for unknown contents, `ERR_OPTION`; the errors of `finetune` for
 * data; `ERR_HUB`, `ERR_WRITE` for a hub's model; the signal's reason.
 */
export async function inspect(
  path: string | readonly string[],
  given: InspectOptions = {},
): Promise<Inspected> {
  const options = checkOptions(path, given);
  const { signal } = options;
  signal?.throwIfAborted();
  if (typeof path !== "string")
    return path.length === 1 ? inspect(path[0] as string, given) : describeData(path, options);
  if (path === STANDARD_INPUT) return describeData(path, options);
  if (!existsSync(path)) {
    if (parseHubName(path) !== undefined) return inspectModel(await locate(path, options));
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${path}: there is no such file or folder`);
  }
  const folder = statSync(path).isDirectory();
  if (!folder && isGguf(path)) return inspectModel(await locate(path, { signal }));
  if (folder || path.endsWith(".safetensors")) {
    if (isAdapter(path)) return inspectAdapter(path, await locateModel(options));
    if (folder && !existsSync(join(path, "config.json"))) {
      const what = "there is neither a config.json, as a model has, nor an adapter_config.json";
      throw new LowrankError("ERR_FILE_NOT_FOUND", `${path}: ${what}`);
    }
    return inspectModel(await locate(path, { signal }));
  }
  return describeData(path, options);
}

function checkOptions(path: string | readonly string[], given: InspectOptions): InspectOptions {
  const where = "inspect";
  const paths = Array.isArray(path)
    ? checkList(where, "path", path, checkText)
    : [checkText(where, "path", path)];
  if (paths.length === 0 || paths.includes(""))
    refuse(where, "path", "the name of a file or a folder, or an array of data files", path);
  const options = checkKnownOptions(where, given, OPTIONS);
  const { model, offline, dataFormat, trainOn, promptFormat, maxLength, rows, signal } = options;
  if (
    model !== undefined &&
    !(model instanceof PretrainedModel) &&
    (typeof model !== "string" || model === "")
  )
    refuse(where, "model", "a folder, a name at a hub or a loaded model", model);
  for (const name of ["revision", "chatTemplate", "language"] as const)
    if (options[name] !== undefined && checkText(where, name, options[name]) === "")
      refuse(where, name, "no empty text", "");
  if (offline !== undefined) checkFlag(where, "offline", offline);
  if (dataFormat !== undefined) checkChoice(where, "dataFormat", dataFormat, DATA_FORMATS);
  if (trainOn !== undefined) checkChoice(where, "trainOn", trainOn, TRAIN_ON);
  if (promptFormat !== undefined) checkChoice(where, "promptFormat", promptFormat, PROMPT_FORMATS);
  if (maxLength !== undefined) checkWhole(where, "maxLength", maxLength, 2);
  if (rows !== undefined) checkWhole(where, "rows", rows);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    refuse(where, "signal", "an AbortSignal", signal);
  return options;
}

/** Locates the given model; for a loaded model returns the folder that it was loaded from. */
async function locateModel({ model, ...options }: InspectOptions): Promise<Located | undefined> {
  if (model === undefined) return undefined;
  if (typeof model === "string") return locate(model, options);
  const { folder, source = folder, revision } = model;
  if (folder !== undefined) return { path: folder, source: source as string, revision };
  throw new LowrankError(
    "ERR_OPTION",
    "inspect: the model was not loaded from a folder, so that it has no headers to read; save it, and name the folder",
  );
}

/** Describes data, as a run would train on it. */
async function describeData(
  path: string | readonly string[],
  options: InspectOptions,
): Promise<InspectedData> {
  const { model: named = locateDefaultModel(), signal, trainOn, promptFormat, language } = options;
  const { maxLength = 512, rows: shown = 3 } = options;
  const data = await readData(path, { format: options.dataFormat, signal });
  try {
    const loaded = named instanceof PretrainedModel;
    const { chatTemplate } = options;
    if (loaded && chatTemplate !== undefined)
      throw createRefusal(TRAINING_REFUSALS.templateOfLoaded, "inspect");
    const template = chatTemplate === undefined ? undefined : readTemplateFile(chatTemplate);
    const located = loaded ? undefined : await locate(named, options);
    const labels = findClasses({ train: data, held: undefined }, located?.path ?? (named as PretrainedModel));
    const model: PretrainedModel =
      located === undefined
        ? (named as PretrainedModel)
        : await loadLocated(located, {
            device: "meta:cpu",
            signal,
            onNotice: () => {},
            // The same head as in a run.
            ...(labels !== undefined && { task: "sequence-classification", numLabels: labels.length }),
          });
    try {
      if (template !== undefined) model.tokenizer?.setChatTemplate(template.text, template.where);
      const request = { maxLength, shown, labels, trainOn, promptFormat, language, chatTemplate, signal };
      return await inspectData(data, model, request);
    } finally {
      if (!loaded) model.dispose();
    }
  } finally {
    closeData(data);
  }
}
