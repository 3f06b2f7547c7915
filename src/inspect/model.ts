/** What a model's folder or file is, by its configuration and the headers of its weights. */
import { LowrankError } from "../errors.js";
import { targeted } from "../lora/options/targets.js";
import { inFolder } from "../models/beside.js";
import { readChatTemplate } from "../models/chat-template-files.js";
import { loadLocated, type LoadOptions } from "../models/load.js";
import type { Located } from "../models/locate.js";
import type { PretrainedModel } from "../models/pretrained.js";
import { Embedding } from "../nn/embedding.js";
import { Linear } from "../nn/linear.js";
import { storedModel } from "../models/stored.js";
import { type Contents, contentsOf } from "./contents.js";

/** Layers of one name that an adapter may be on. */
export interface InspectedTarget {
  /** The last part of their paths, such as `q_proj`. */
  name: string;
  /** How many they are. */
  layers: number;
  /** Features, or rows and channels of an embedding: what goes in, and what comes out, where all have the same. */
  features?: [inFeatures: number, outFeatures: number] | undefined;
  /** Whether it is among those that `all-linear` adapts. */
  allLinear: boolean;
}

/** A model, as its files say. What a field is undefined of, they do not say, or the model has none of. */
export interface InspectedModel extends Contents {
  /** Tells it from what else `inspect` finds. */
  kind: "model";
  /** The folder or the file. */
  path: string;
  /** What it is called: the path, or its name at a hub. */
  source: string;
  /** The commit at a hub. */
  revision?: string | undefined;
  /** `model_type` of its configuration. */
  family?: string | undefined;
  /** The first of its configuration's `architectures`. */
  architecture?: string | undefined;
  /** The class that loads it. */
  loadedAs?: string | undefined;
  /** Blocks. */
  layers?: number | undefined;
  /** Channels of a position, C. */
  hiddenSize?: number | undefined;
  /** Heads of queries, H. */
  heads?: number | undefined;
  /** Heads of keys and values. */
  keyValueHeads?: number | undefined;
  /** Channels of a head, D. */
  headDim?: number | undefined;
  /** Tokens of the longest text. */
  context?: number | undefined;
  /** Tokens that the embedding has, V. */
  vocabulary?: number | undefined;
  /** Whether the head's weight is the input embedding's. */
  tied?: boolean | undefined;
  /** Classes of a classifier. */
  labels?: readonly string[] | undefined;
  /** Its `tokenizer.json`: tokens, and whether a chat template lies beside it. */
  tokenizer?:
    | {
        /** Tokens. */
        vocabulary: number;
        /** Whether there is one. */
        chatTemplate: boolean;
      }
    | undefined;
  /** Which layers an adapter may be on. */
  targets: InspectedTarget[];
  /** Whether it can be loaded. */
  fits: boolean;
  /** Why it cannot, a sentence each. */
  problems: string[];
  /** What there is to tell of a model that can. */
  notices: string[];
}

/** Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT` where there is nothing to read; what is wrong besides is told. */
export async function inspectModel({ path, source, revision }: Located): Promise<InspectedModel> {
  const stored = await storedModel(path);
  const { config, folder } = stored;
  const architectures: unknown = config.value("architectures");
  const [problems, notices]: [string[], string[]] = [[], []];
  const told = <T>(read: () => T): T | undefined => {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof LowrankError)) throw error;
      problems.push(error.message);
      return undefined;
    }
  };
  const contents = told(() => contentsOf(path)) ?? { parameters: 0, bytes: 0, dtypes: {} };
  const tokenizer = told(() => stored.tokenizer());
  const beside = folder === undefined ? stored.beside : inFolder(folder);
  const chatTemplate =
    told(() => beside !== undefined && readChatTemplate(beside, false) !== undefined) ?? false;
  const model =
    problems.length > 0 ? undefined : await headerModel({ path, source, revision }, problems, notices);
  const found: InspectedModel = {
    kind: "model",
    path,
    source,
    ...(revision !== undefined && { revision }),
    family: told(() => config.string("model_type")),
    architecture: Array.isArray(architectures) ? String(architectures[0]) : undefined,
    ...contents,
    ...(tokenizer !== undefined && { tokenizer: { vocabulary: tokenizer.vocabSize, chatTemplate } }),
    ...(model === undefined ? {} : sizesOf(model)),
    targets: model === undefined ? [] : targetsOf(model),
    fits: model !== undefined,
    problems,
    notices,
  };
  model?.dispose();
  return found;
}

/** The model on a device that holds nothing: every name and shape is compared with the configuration. */
export async function headerModel(
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

/** What the families' configurations call the same. */
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

function sizesOf(model: PretrainedModel): Partial<InspectedModel> {
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
    // Whatever loads it: a head that is not used is no part of it.
    ...(config.labels !== undefined && model.taskType !== "FEATURE_EXTRACTION" && { labels: config.labels }),
  };
}

function targetsOf(model: PretrainedModel): InspectedTarget[] {
  const allLinear = new Set(targeted(model, { targetModules: "all-linear" }).keys());
  const groups = new Map<string, { features: string[]; layers: number; allLinear: boolean }>();
  for (const [path, layer] of targeted(model, { targetModules: ".*" })) {
    const name = path.split(".").at(-1) as string;
    const group = groups.get(name) ?? { features: [], layers: 0, allLinear: false };
    group.layers++;
    group.allLinear ||= allLinear.has(path);
    if (layer instanceof Linear) group.features.push(`${layer.inFeatures},${layer.outFeatures}`);
    else if (layer instanceof Embedding) group.features.push(`${layer.numEmbeddings},${layer.embeddingDim}`);
    groups.set(name, group);
  }
  return [...groups].map(([name, { features, layers, allLinear: all }]) => {
    const [one, other] = new Set(features);
    const same = other === undefined && one !== undefined && features.length === layers;
    return {
      name,
      layers,
      ...(same && { features: one.split(",").map(Number) as [number, number] }),
      allLinear: all,
    };
  });
}
