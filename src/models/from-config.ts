/** Creates models from a configuration alone, with randomly initialised weights. */
import { isPlain, checkChoice, checkKnownOptions, formatValue } from "../arguments/check.js";
import { resolveDevice, type Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import type { FloatDType } from "../tensor/tensor.js";
import { ConfigFields } from "./config-fields.js";
import { FreshWeights, type Weights } from "./weights.js";

/** Options of `fromConfig`. */
export interface FromConfigOptions {
  /** The device of the weights; by default the default device. */
  device?: Device | undefined;
  /**
   * The weights' dtype, f32 by default; biases are f32. With f16 or bf16 the whole model is frozen, and only adapters
   * can be trained.
   */
  dtype?: FloatDType | undefined;
}

/** Fields of transformers' configurations that all families share. */
export interface CommonConfigFields {
  /** By default the class's family. */
  model_type?: string | undefined;
  /** Accepted and ignored: the called class decides. */
  architectures?: readonly string[] | null | undefined;
  /** The standard deviation of the initial weights; 0.02 by default. */
  initializer_range?: number | undefined;
  /** The older name of `dtype`. */
  torch_dtype?: string | null | undefined;
  /**
   * The dtype that a file names, such as `bfloat16`; kept for saving. The option `dtype` decides how weights are
   * stored.
   */
  dtype?: string | null | undefined;
}

/** Fields of text models. */
export interface TextConfigFields extends CommonConfigFields {
  /** The id at the start of a text. */
  bos_token_id?: number | null | undefined;
  /** The ids that end a generation. */
  eos_token_id?: number | readonly number[] | null | undefined;
  /** The padding id. */
  pad_token_id?: number | null | undefined;
}

/** Fields of classifiers. */
export interface LabelConfigFields {
  /** The number of classes, where `id2label` is absent; 2 by default. */
  num_labels?: number | null | undefined;
  /** Names of the classes, by index. */
  id2label?: Readonly<Record<string, string>> | null | undefined;
  /** Accepted and ignored: it mirrors `id2label`. */
  label2id?: Readonly<Record<string, number>> | null | undefined;
  /** single_label_classification, regression or multi_label_classification; by default inferred from the labels. */
  problem_type?: string | null | undefined;
}

/**
 * Keys of transformers' configurations that are accepted and ignored: runtime settings, other tasks, unused features.
 */
const INERT = new Set(
  [
    "architectures auto_map bad_words_ids",
    "chunk_size_feed_forward classifier_dropout do_sample encoder_stride finetuning_task gradient_checkpointing",
    "initializer_range is_decoder is_encoder_decoder label2id max_length min_length model_type name_or_path",
    "output_attentions output_hidden_states pooler_act pooler_output_size pretraining_tp problem_type",
    "reorder_and_upcast_attn return_dict summary_activation summary_first_dropout summary_proj_to_labels",
    "summary_type summary_use_proj task_specific_params tie_word_embeddings tokenizer_class torchscript",
    "transformers_version use_bfloat16 use_cache id2label num_labels torch_dtype dtype",
    "cross_attention_hidden_size add_cross_attention tie_encoder_decoder pruned_heads prefix decoder_start_token_id",
    "bos_token_id eos_token_id pad_token_id sep_token_id position_embedding_type n_ctx qa_dropout tie_weights_",
    "scale_embedding num_hidden_layers encoder_layerdrop decoder_layerdrop apply_spec_augment mask_time_prob",
    "mask_time_length mask_time_min_masks mask_feature_prob mask_feature_length mask_feature_min_masks",
    "median_filter_width classifier_proj_size use_weighted_layer_sum",
    // Read only where the keys that take precedence over them are absent.
    "original_max_position_embeddings partial_rotary_factor rope_parameters rope_theta",
  ]
    .join(" ")
    .split(" "),
);

interface Recipe<Config, Model> {
  /** Accepted values of `model_type`, the class's own first. */
  modelTypes: readonly string[];
  read: (fields: ConfigFields) => Config & { initializerRange: number };
  make(config: Config, weights: Weights): Model;
}

/**
 * Creates a model from `config`, fields as named in transformers' `config.json`, with weights drawn from the generator
 * that `manualSeed` seeds.
 *
 * Throws `ERR_OPTION` for a field that is missing, invalid or unknown; `ERR_UNSUPPORTED_MODEL`; `ERR_NO_GPU`,
 * `ERR_OUT_OF_MEMORY`.
 */
export function buildFromConfig<Config, Model>(
  where: string,
  config: object,
  given: FromConfigOptions | undefined,
  { modelTypes, read, make }: Recipe<Config, Model>,
): Model {
  const { device, dtype = "f32" } = checkKnownOptions(where, given, ["device", "dtype"]);
  checkChoice(where, "dtype", dtype, ["f32", "f16", "bf16"]);
  if (!isPlain(config)) {
    throw new LowrankError(
      "ERR_OPTION",
      `${where}: the first argument must be an object of configuration fields`,
    );
  }
  const { model_type: type = modelTypes[0], ...rest } = config as { model_type?: unknown };
  if (!modelTypes.includes(type as string)) {
    throw new LowrankError(
      "ERR_OPTION",
      `${where}: model_type is ${modelTypes.map((name) => `"${name}"`).join(" or ")}, not ${formatValue(type)}`,
    );
  }
  const fields = new ConfigFields(where, { model_type: type, ...rest }, "", "ERR_OPTION");
  const settled = read(fields);
  const unknown = fields.listUnread().filter((key) => !INERT.has(key) && !key.startsWith("_"));
  if (unknown.length > 0) {
    const known = fields.listRead().filter((key) => key !== "quantization_config");
    throw new LowrankError(
      "ERR_OPTION",
      `${where}: unknown field ${unknown.join(", ")}; known fields are ${known.join(", ")}`,
    );
  }
  return make(settled, new FreshWeights(resolveDevice(device), settled.initializerRange, dtype));
}
