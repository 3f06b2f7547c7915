/** The interface of a model family: the models that it covers, and how to build each task. */
import { LowrankError } from "../errors.js";
import type { ConfigFields } from "./config-fields.js";
import type { PretrainedModel } from "./pretrained.js";
import type { Naming, Weights } from "./weights.js";

/** The task that a model is loaded for, a key of `TaskModels`. */
export type Task =
  "causal-lm" | "sequence-classification" | "image-classification" | "feature-extraction" | "speech-to-text";

/** The sources of a family's configuration. */
export interface ConfigSource {
  config: ConfigFields;
  /** `generation_config.json`, where there is one. */
  generation: ConfigFields | undefined;
  /** The model's folder. */
  folder: string;
  /** The number of classes; overrides the file's. */
  numLabels: number | undefined;
}

/** A method, so that families with different configurations fit in one list (parameter bivariance). */
interface Builder<Config> {
  build(config: Config, weights: Weights): PretrainedModel;
}

export interface Family<Config> {
  /** The values of `model_type` that it covers. */
  modelTypes: readonly string[];
  /** Throws `ERR_UNSUPPORTED_MODEL`, `ERR_FILE_FORMAT`. */
  read(source: ConfigSource): Config;
  naming(config: Config): Naming;
  /** Builders by task; the first is the default for a bare model. */
  tasks: Partial<Record<Task, Builder<Config>["build"]>>;
  /** Tensors that a file may contain as duplicates of another. */
  doubled?(config: Config): readonly string[];
}

/** Tasks by the suffixes of class names. */
const CLASSES: readonly (readonly [RegExp, Task])[] = [
  [/(ForCausalLM|LMHeadModel|DoubleHeadsModel)$/, "causal-lm"],
  [/ForSequenceClassification$/, "sequence-classification"],
  [/ForImageClassification$/, "image-classification"],
  [/ForConditionalGeneration$/, "speech-to-text"],
];

/** Classes with a whole model, without a head or with one that is ignored. */
const BARE = /(Model|ForMaskedLM|ForPreTraining|ForMaskedImageModeling)$/;

/**
 * Returns the task `requested`, or else the one named by `architectures`. Throws `ERR_UNSUPPORTED_MODEL`, listing the
 * family's tasks.
 */
export function resolveTask(
  family: Family<unknown>,
  config: ConfigFields,
  requested: Task | undefined,
): Task {
  const tasks = Object.keys(family.tasks) as [Task, ...Task[]];
  const architectures = config.readValue("architectures");
  const name: unknown = Array.isArray(architectures) ? architectures[0] : undefined;
  const named =
    typeof name !== "string"
      ? tasks[0]
      : (CLASSES.find(([pattern]) => pattern.test(name))?.[1] ?? (BARE.test(name) ? tasks[0] : undefined));
  const task = requested ?? named;
  if (task !== undefined && tasks.includes(task)) return task;
  const what = requested === undefined ? `the architecture ${String(name)}` : `the task "${requested}"`;
  // Most users get here through rows with labels, not through an explicit task.
  const hint =
    requested === "sequence-classification"
      ? "; rows with a label train a classifier of texts: BERT, RoBERTa or DistilBERT"
      : "";
  throw new LowrankError(
    "ERR_UNSUPPORTED_MODEL",
    `${config.file}: ${what} is not supported for ${config.readString("model_type")}; supported are ${tasks.join(", ")}${hint}`,
  );
}
