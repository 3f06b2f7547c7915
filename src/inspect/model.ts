/** Describes a model's folder or file by its configuration and the headers of its weights. */
import { LowrankError } from "../errors.js";
import { findTargets } from "../lora/options/targets.js";
import { openCompanions } from "../models/companion-files.js";
import { readChatTemplate } from "../models/chat-template-files.js";
import { loadLocated, type LoadOptions } from "../models/files/load.js";
import type { Located } from "../models/files/locate.js";
import type { PretrainedModel } from "../models/pretrained.js";
import { Embedding } from "../nn/embedding.js";
import { Linear } from "../nn/linear.js";
import { openStoredModel } from "../models/files/stored.js";
import { type Contents, readContents } from "./contents.js";

/** Layers with the same name that can be adapted. */
export interface InspectedTarget {
  /** The last part of their paths, such as `q_proj`. */
  name: string;
  /** The number of layers. */
  layers: number;
  /** Input and output features, or rows and channels of an embedding; undefined if the layers differ. */
  features?: [inFeatures: number, outFeatures: number] | undefined;
  /** Whether `all-linear` includes any of them. */
  allLinear: boolean;
}

/** The description of a model. Fields that its files do not state, or that do not apply to it, are undefined. */
export interface InspectedModel extends Contents {
  /** Identifies the result. */
  kind: "model";
  /** The folder or the file. */
  path: string;
  /** The model's path, or its name at a hub. */
  source: string;
  /** The commit at a hub. */
  revision?: string | undefined;
  /** `model_type` of its configuration. */
  family?: string | undefined;
  /** The first of its configuration's `architectures`. */
  architecture?: string | undefined;
  /** The class of the loaded model. */
  loadedAs?: string | undefined;
  /** The number of blocks. */
  layers?: number | undefined;
  /** Channels per position, C. */
  hiddenSize?: number | undefined;
  /** Query heads, H. */
  heads?: number | undefined;
  /** Key and value heads. */
  keyValueHeads?: number | undefined;
  /** Channels per head, D. */
  headDim?: number | undefined;
  /** The maximum number of tokens in a text. */
  context?: number | undefined;
  /** The number of tokens in the embedding, V. */
  vocabulary?: number | undefined;
  /** Whether the head shares the weight of the input embedding. */
  tied?: boolean | undefined;
  /** The classes of a classifier. */
  labels?: readonly string[] | undefined;
  /** The model's tokenizer, if it has one. */
  tokenizer?:
    | {
        /** The number of tokens. */
        vocabulary: number;
        /** Whether the model has a chat template. */
        chatTemplate: boolean;
      }
    | undefined;
  /** The layers that can be adapted. */
  targets: InspectedTarget[];
  /** Whether the model can be loaded. */
  fits: boolean;
  /** Problems that prevent loading, one sentence each. */
  problems: string[];
  /** Notices for a model that can be loaded. */
  notices: string[];
}

/** Throws `ERR_FILE_NOT_FOUND` or `ERR_FILE_FORMAT` for unreadable files; the result lists all other problems. */
export async function inspectModel({ path, source, revision }: Located): Promise<InspectedModel> {
  const stored = await openStoredModel(path);
  const { config, folder } = stored;
  const architectures: unknown = config.readValue("architectures");
  const [problems, notices]: [string[], string[]] = [[], []];
  const attempt = <T>(read: () => T): T | undefined => {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof LowrankError)) throw error;
      problems.push(error.message);
      return undefined;
    }
  };
  const contents = attempt(() => readContents(path)) ?? { parameters: 0, bytes: 0, dtypes: {} };
  const tokenizer = attempt(() => stored.tokenizer());
  const companions = folder === undefined ? stored.companions : openCompanions(folder);
  const chatTemplate =
    attempt(() => companions !== undefined && readChatTemplate(companions, false) !== undefined) ?? false;
  const model =
    problems.length > 0 ? undefined : await loadHeaderModel({ path, source, revision }, problems, notices);
  const found: InspectedModel = {
    kind: "model",
    path,
    source,
    ...(revision !== undefined && { revision }),
    family: attempt(() => config.readString("model_type")),
    architecture: Array.isArray(architectures) ? String(architectures[0]) : undefined,
    ...contents,
    ...(tokenizer !== undefined && { tokenizer: { vocabulary: tokenizer.vocabSize, chatTemplate } }),
    ...(model === undefined ? {} : measureModel(model)),
    targets: model === undefined ? [] : listTargets(model),
    fits: model !== undefined,
    problems,
    notices,
  };
  model?.dispose();
  return found;
}

/** Loads the model on a meta device, which compares every name and shape with the configuration. */
export async function loadHeaderModel(
  located: Located,
  problems: string[],
  notices: string[],
  task: Pick<LoadOptions, "task" | "numLabels"> = {},
): Promise<PretrainedModel | undefined> {
  try {
    const onNotice = (text: string): void => void notices.push(text);
    return await loadLocated(located, { ...task, device: "meta:cpu", onNotice });
  } catch (error) {
    if (!(error instanceof LowrankError)) throw error;
    problems.push(error.message);
    return undefined;
  }
}

/** The fields that the configurations of all families share. */
interface Sizes {
  numHiddenLayers?: number;
  hiddenSize?: number;
  numAttentionHeads?: number;
  numKeyValueHeads?: number;
  headDim?: number;
  maxPositionEmbeddings?: number;
  vocabSize?: number;
  tieWordEmbeddings?: boolean;
  labels?: readonly string[];
}

function measureModel(model: PretrainedModel): Partial<InspectedModel> {
  const config = model.config as Sizes;
  const { hiddenSize, numAttentionHeads: heads } = config;
  const even = hiddenSize === undefined || heads === undefined ? undefined : hiddenSize / heads;
  return {
    loadedAs: model.constructor.name,
    layers: config.numHiddenLayers,
    hiddenSize,
    heads,
    keyValueHeads: config.numKeyValueHeads ?? heads,
    headDim: config.headDim ?? even,
    context: config.maxPositionEmbeddings,
    vocabulary: config.vocabSize,
    tied: config.tieWordEmbeddings,
    // A base model may name classes in its configuration although it has no classifier head.
    ...(config.labels !== undefined && model.taskType !== "FEATURE_EXTRACTION" && { labels: config.labels }),
  };
}

function listTargets(model: PretrainedModel): InspectedTarget[] {
  const allLinear = new Set(findTargets(model, { targetModules: "all-linear" }).keys());
  const groups = new Map<string, { features: string[]; layers: number; allLinear: boolean }>();
  for (const [path, layer] of findTargets(model, { targetModules: ".*" })) {
    const name = path.split(".").at(-1) as string;
    const group = groups.get(name) ?? { features: [], layers: 0, allLinear: false };
    group.layers++;
    group.allLinear ||= allLinear.has(path);
    if (layer instanceof Linear) group.features.push(`${layer.inFeatures},${layer.outFeatures}`);
    else if (layer instanceof Embedding) group.features.push(`${layer.numEmbeddings},${layer.embeddingDim}`);
    groups.set(name, group);
  }
  return [...groups].map(([name, { features, layers, allLinear: all }]) => {
    const [first, other] = new Set(features);
    const same = other === undefined && first !== undefined && features.length === layers;
    return {
      name,
      layers,
      ...(same && { features: first.split(",").map(Number) as [number, number] }),
      allLinear: all,
    };
  });
}
