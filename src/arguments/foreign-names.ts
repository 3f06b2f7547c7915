/**
 * Names of options in other libraries, with the option of this package that does the same. Messages about unknown options
 * and a table of docs/options.md are made from it.
 */

/** The libraries, by the names in the docs. */
export type Library = "mlx-lm" | "PEFT" | "transformers" | "TRL" | "Unsloth" | "llama.cpp";

export interface ForeignName {
  /** The names, with underscores. Messages ignore case, hyphens and underscores. */
  readonly names: readonly string[];
  readonly libraries: readonly Library[];
  /** The path of this package's option, such as `optimizer.lr`. */
  readonly option: string;
  /** The value and its unit, as a noun phrase. */
  readonly unit: string;
  /** A value for the command line and for a file of options; absent for a flag without a value. */
  readonly example?: string;
}

/** The names. Of several entries with one name, the first whose option the caller has is used. */
export const FOREIGN_NAMES: readonly ForeignName[] = [
  {
    names: ["learning_rate", "adam_alpha"],
    libraries: ["mlx-lm", "transformers", "TRL", "Unsloth", "llama.cpp"],
    option: "optimizer.lr",
    unit: "the peak learning rate",
    example: "2e-4",
  },
  {
    names: ["r", "lora_r", "lora_rank", "rank"],
    libraries: ["mlx-lm", "PEFT", "TRL", "Unsloth", "llama.cpp"],
    option: "lora.r",
    unit: "the rank of the adapter",
    example: "8",
  },
  {
    names: ["lora_alpha", "alpha"],
    libraries: ["PEFT", "TRL", "Unsloth", "llama.cpp"],
    option: "lora.loraAlpha",
    unit: "a number that is divided by the rank to give the scaling",
    example: "16",
  },
  {
    names: ["scale", "lora_scale"],
    libraries: ["mlx-lm"],
    option: "lora.loraAlpha",
    unit: "mlx-lm's scale times the rank",
    example: "160",
  },
  {
    names: ["lora_dropout", "dropout"],
    libraries: ["mlx-lm", "PEFT", "TRL", "Unsloth"],
    option: "lora.loraDropout",
    unit: "a probability, from 0 to below 1",
    example: "0.05",
  },
  {
    names: ["target_modules", "lora_target_modules", "keys"],
    libraries: ["mlx-lm", "PEFT", "TRL", "Unsloth"],
    option: "lora.targetModules",
    unit: "names of layers, or all-linear",
    example: "q_proj,v_proj",
  },
  {
    names: ["layers_to_transform", "num_layers", "lora_layers"],
    libraries: ["mlx-lm", "PEFT"],
    option: "lora.layersToTransform",
    unit: "the numbers of the blocks to adapt, from 0",
  },
  {
    names: ["num_layers", "lora_layers", "layers_to_transform"],
    libraries: ["mlx-lm", "PEFT"],
    option: "lora.targetModules",
    unit: "names of layers, with the number of their block",
    example: "layers.1.self_attn.q_proj,layers.1.self_attn.v_proj",
  },
  {
    names: ["use_rslora", "lora_use_rslora"],
    libraries: ["PEFT", "TRL", "Unsloth"],
    option: "lora.useRslora",
    unit: "scaling by alpha / √rank",
  },
  {
    names: ["use_dora", "fine_tune_type", "train_type"],
    libraries: ["mlx-lm", "PEFT", "TRL"],
    option: "lora.useDora",
    unit: "DoRA instead of LoRA, which is the default",
  },
  {
    names: ["init_lora_weights"],
    libraries: ["PEFT", "Unsloth"],
    option: "lora.initLoraWeights",
    unit: "the name of an initialisation",
    example: "pissa",
  },
  {
    names: ["modules_to_save", "lora_modules_to_save"],
    libraries: ["PEFT", "TRL", "Unsloth"],
    option: "lora.modulesToSave",
    unit: "names of modules to train fully",
    example: "lm_head",
  },
  {
    names: ["iters", "max_steps", "adam_iter"],
    libraries: ["mlx-lm", "transformers", "TRL", "Unsloth", "llama.cpp"],
    option: "steps",
    unit: "a number of optimizer steps, each of batch size × accumulated batches",
    example: "100",
  },
  {
    names: ["num_train_epochs", "num_epochs", "n_epochs"],
    libraries: ["transformers", "TRL", "Unsloth"],
    option: "epochs",
    unit: "a number of passes over the data",
    example: "3",
  },
  {
    names: ["per_device_train_batch_size", "train_batch_size", "micro_batch_size", "batch"],
    libraries: ["transformers", "TRL", "Unsloth", "llama.cpp"],
    option: "batchSize",
    unit: "a number of rows per batch",
    example: "2",
  },
  {
    names: ["gradient_accumulation_steps", "grad_accumulation_steps", "grad_acc"],
    libraries: ["mlx-lm", "transformers", "TRL", "Unsloth", "llama.cpp"],
    option: "gradientAccumulation",
    unit: "a number of batches per optimizer step",
    example: "4",
  },
  {
    names: ["max_seq_length", "max_seq_len", "ctx", "ctx_size", "model_max_length"],
    libraries: ["mlx-lm", "TRL", "Unsloth", "llama.cpp"],
    option: "maxLength",
    unit: "the maximum number of tokens in a row",
    example: "512",
  },
  {
    names: ["mask_prompt", "completion_only_loss", "assistant_only_loss", "train_on_responses_only"],
    libraries: ["mlx-lm", "TRL", "Unsloth"],
    option: "trainOn",
    unit: "the trained part of a row: completion, which is the default, or all",
    example: "completion",
  },
  {
    names: ["grad_checkpoint", "gradient_checkpointing", "use_gradient_checkpointing", "use_checkpointing"],
    libraries: ["mlx-lm", "transformers", "TRL", "Unsloth", "llama.cpp"],
    option: "gradientCheckpointing",
    unit: "less memory and more time",
  },
  {
    names: ["warmup_steps", "num_warmup_steps"],
    libraries: ["transformers", "TRL", "Unsloth"],
    option: "warmup",
    unit: "a number of optimizer steps",
    example: "10",
  },
  {
    names: ["warmup_ratio"],
    libraries: ["transformers", "TRL"],
    option: "warmup",
    unit: "a number of optimizer steps, and no share of them",
    example: "10",
  },
  {
    names: ["lr_scheduler_type", "lr_schedule", "lr_scheduler"],
    libraries: ["mlx-lm", "transformers", "TRL", "Unsloth"],
    option: "schedule",
    unit: "the name of a schedule: linear, cosine or constant",
    example: "cosine",
  },
  {
    names: ["optim"],
    libraries: ["transformers", "TRL", "Unsloth"],
    option: "optimizer.type",
    unit: "the name of an optimizer: adamw, adam, sgd, lion or adafactor",
    example: "adamw",
  },
  {
    names: ["max_grad_norm", "max_norm", "clip_grad_norm", "adam_gclip"],
    libraries: ["transformers", "TRL", "Unsloth", "llama.cpp"],
    option: "clipNorm",
    unit: "the maximum norm of the gradients; 0 disables clipping",
    example: "1",
  },
  {
    names: ["loraplus_lr_ratio", "lora_plus_ratio"],
    libraries: ["PEFT"],
    option: "optimizer.loraPlusRatio",
    unit: "the ratio of the learning rates of B and A",
    example: "16",
  },
  {
    names: ["label_smoothing_factor"],
    libraries: ["transformers", "TRL"],
    option: "labelSmoothing",
    unit: "a share, from 0 to below 1",
    example: "0.1",
  },
  {
    names: ["steps_per_eval", "eval_steps"],
    libraries: ["mlx-lm", "transformers", "TRL"],
    option: "evalEvery",
    unit: "a number of optimizer steps",
    example: "100",
  },
  {
    names: ["save_steps", "checkpoint_every"],
    libraries: ["transformers", "TRL", "Unsloth"],
    option: "saveEvery",
    unit: "a number of optimizer steps, a time or never",
    example: "10m",
  },
  {
    names: ["early_stopping_patience"],
    libraries: ["transformers"],
    option: "patience",
    unit: "a number of evaluations",
    example: "3",
  },
  {
    names: ["report_to"],
    libraries: ["mlx-lm", "transformers", "TRL", "Unsloth"],
    option: "log",
    unit: "the name of a format: csv or tensorboard",
    example: "tensorboard",
  },
  {
    names: ["train_data", "train_file", "dataset", "dataset_name", "dataset_path"],
    libraries: ["TRL", "Unsloth", "llama.cpp"],
    option: "data",
    unit: "a file of rows",
    example: "rows.jsonl",
  },
  {
    names: ["eval_dataset", "validation_file", "valid_file", "val_data"],
    libraries: ["transformers", "TRL"],
    option: "evalData",
    unit: "a file of held-out rows",
    example: "valid.jsonl",
  },
  {
    names: ["val_split", "test_size", "validation_split"],
    libraries: ["llama.cpp"],
    option: "evalSplit",
    unit: "the held-out share of the rows, above 0 and below 1",
    example: "0.1",
  },
  {
    names: [
      "model_name_or_path",
      "model_name",
      "base_model",
      "model_base",
      "base_model_name_or_path",
      "hf_path",
    ],
    libraries: ["PEFT", "TRL", "Unsloth", "llama.cpp"],
    option: "model",
    unit: "a folder, a GGUF file or a name at the hub",
    example: "SmolLM2-135M",
  },
  {
    names: ["output_dir", "adapter_path", "save_path", "lora_out"],
    libraries: ["mlx-lm", "transformers", "TRL", "Unsloth", "llama.cpp"],
    option: "output",
    unit: "the folder of the new adapter",
    example: "adapter",
  },
  {
    names: ["adapter_path", "lora", "peft_model_id", "adapter_name_or_path"],
    libraries: ["mlx-lm", "PEFT", "llama.cpp"],
    option: "adapter",
    unit: "the folder of an adapter",
    example: "adapter",
  },
  {
    names: ["resume_adapter_file", "adapter_name_or_path"],
    libraries: ["mlx-lm"],
    option: "adapter",
    unit: "the folder of the adapter to start from",
    example: "adapter",
  },
  {
    names: ["resume_from_checkpoint", "checkpoint_in"],
    libraries: ["transformers", "TRL", "llama.cpp"],
    option: "resume",
    unit: "the output folder of the run to resume",
    example: "lowrank-out",
  },
  {
    names: ["overwrite_output_dir"],
    libraries: ["transformers"],
    option: "overwrite",
    unit: "replacement of an earlier run in the output folder",
  },
  {
    names: ["random_state", "data_seed", "sample_random_offsets"],
    libraries: ["transformers", "Unsloth", "llama.cpp"],
    option: "seed",
    unit: "a whole number",
    example: "0",
  },
  {
    names: ["load_in_4bit", "load_in_8bit", "q_bits"],
    libraries: ["TRL", "Unsloth", "mlx-lm"],
    option: "quantize",
    unit: "a block type: nf4 or q4_k for 4 bits, q8_0 for 8 bits",
    example: "nf4",
  },
  {
    names: ["torch_dtype", "bf16", "fp16"],
    libraries: ["transformers", "TRL", "Unsloth"],
    option: "dtype",
    unit: "the storage of the model's weights: f32, f16 or bf16",
    example: "bf16",
  },
  {
    names: ["use_cpu", "no_cuda", "device_map"],
    libraries: ["transformers"],
    option: "device",
    unit: "auto, cpu, gpu or gpu:N",
    example: "cpu",
  },
  {
    names: ["max_new_tokens", "n_predict", "max_length", "num_predict", "max_completion_tokens"],
    libraries: ["transformers", "Unsloth", "llama.cpp"],
    option: "maxNewTokens",
    unit: "the maximum number of tokens to generate",
    example: "64",
  },
  {
    names: ["max_tokens"],
    libraries: ["mlx-lm"],
    option: "maxNewTokens",
    unit: "the maximum number of tokens to generate",
    example: "64",
  },
  {
    names: ["temp"],
    libraries: ["mlx-lm", "llama.cpp"],
    option: "temperature",
    unit: "a number that divides the logits; 0 takes the most likely token",
    example: "0.7",
  },
  {
    names: ["repeat_penalty"],
    libraries: ["llama.cpp"],
    option: "repetitionPenalty",
    unit: "a number above 0; 1 disables it",
    example: "1.1",
  },
  {
    names: ["stop_strings", "extra_eos_token", "reverse_prompt", "stop_sequences"],
    libraries: ["mlx-lm", "transformers", "llama.cpp"],
    option: "stop",
    unit: "a text before which generation stops",
    example: "END",
  },
];
