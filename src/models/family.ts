/** What a family tells the loader: which models it is, and how each task is built. */
import { LowrankError } from "../errors.js";
import type { ConfigFields } from "./config-fields.js";
import type { PretrainedModel } from "./pretrained.js";
import type { Naming, Weights } from "./weights.js";

/** What a model is for: which of `TaskModels` it is loaded as. */
export type Task =
  "causal-lm" | "sequence-classification" | "image-classification" | "feature-extraction" | "speech-to-text";

/** What a family's configuration is read from. */
export interface ConfigSource {
  config: ConfigFields;
  /** `generation_config.json`, where there is one. */
  generation: ConfigFields | undefined;
  /** The model's folder. */
  folder: string;
  /** Classes, in place of those that the file names. */
  numLabels: number | undefined;
}

/** As a method, so that families of different configurations stand in one list. */
interface Builder<Config> {
  build(config: Config, weights: Weights): PretrainedModel;
}

export interface Family<Config> {
  /** Names that `model_type` has for it. */
  modelTypes: readonly string[];
  /** Throws `ERR_UNSUPPORTED_MODEL`, `ERR_FILE_FORMAT`. */
  read(source: ConfigSource): Config;
  naming(config: Config): Naming;
  /** How each task is built; the first is what a bare model is taken for. */
  tasks: Partial<Record<Task, Builder<Config>["build"]>>;
  /** Tensors that may stand in a file a second time. */
  doubled?(config: Config): readonly string[];
}

/** Tasks by the ends of their classes' names. */
const CLASSES: readonly (readonly [RegExp, Task])[] = [
  [/(ForCausalLM|LMHeadModel|DoubleHeadsModel)$/, "causal-lm"],
  [/ForSequenceClassification$/, "sequence-classification"],
  [/ForImageClassification$/, "image-classification"],
  [/ForConditionalGeneration$/, "speech-to-text"],
];

/** Classes that hold a whole model and a head that is left aside. */
const BARE = /(Model|ForMaskedLM|ForPreTraining|ForMaskedImageModeling)$/;

/** The task that `asked`, or else `architectures`, names. Throws `ERR_UNSUPPORTED_MODEL`, listing the family's tasks. */
export function taskOf(family: Family<unknown>, config: ConfigFields, asked: Task | undefined): Task {
  const tasks = Object.keys(family.tasks) as [Task, ...Task[]];
  const architectures = config.value("architectures");
  const name: unknown = Array.isArray(architectures) ? architectures[0] : undefined;
  const named =
    typeof name !== "string"
      ? tasks[0]
      : (CLASSES.find(([pattern]) => pattern.test(name))?.[1] ?? (BARE.test(name) ? tasks[0] : undefined));
  const task = asked ?? named;
  if (task !== undefined && tasks.includes(task)) return task;
  const what = asked === undefined ? `the architecture ${String(name)}` : `the task "${asked}"`;
  // Most users meet this with rows that have labels, and not by asking for the task.
  const hint =
    asked === "sequence-classification"
      ? "; rows with a label train a classifier of texts: BERT, RoBERTa or DistilBERT"
      : "";
  throw new LowrankError(
    "ERR_UNSUPPORTED_MODEL",
    `${config.file}: ${what} is not built for ${config.string("model_type")}; what is: ${tasks.join(", ")}${hint}`,
  );
}
