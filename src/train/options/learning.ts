/** The options of the adapter, the optimizer and the schedule of the learning rate. */
import type { BiasMode, InjectOptions } from "../../lora/index.js";
import type { Targets } from "../../lora/options/targets.js";
import { OPTIMIZER_TYPES, type OptimizerType } from "./optimizer-defaults.js";
import { group, groupOf, option } from "./entry.js";
import {
  anyNumber,
  belowOne,
  betas,
  choice,
  flag,
  initialisation,
  moduleNames,
  notNegative,
  positive,
  probability,
  targets,
  whole,
} from "./kinds.js";

/** The schedules of the learning rate. */
export const SCHEDULES = ["linear", "cosine", "constant"] as const;

export const LEARNING_OPTIONS = {
  /**
   * The adapter's options. By default rank 16, alpha twice the rank, no dropout, and all linear layers except the head.
   * The initialisation `eva` uses the run's data by default; `evaData` replaces it.
   */
  lora: groupOf<InjectOptions>()("fixed", {
    r: option(whole(1), {
      flag: "--rank <n>",
      help: "rank of the adapter",
      default: 16,
      whenResuming: "fixed",
    }),
    loraAlpha: option(anyNumber, {
      flag: "--alpha <n>",
      help: "the scaling is alpha / rank; default: twice the rank",
      whenResuming: "fixed",
      onCommandLine: positive,
    }),
    loraDropout: option(probability, {
      flag: "--dropout <share>",
      help: "dropout of the adapter's input",
      default: 0,
      whenResuming: "fixed",
      onCommandLine: belowOne(),
    }),
    targetModules: option(targets<Targets>(), {
      flag: "--targets <names>",
      help: "layers to adapt: names a,b, all-linear or peft",
      default: "all-linear",
      whenResuming: "fixed",
    }),
    useRslora: option(flag, { flag: "--rslora", help: "scale by alpha / √rank", whenResuming: "fixed" }),
    useDora: option(flag, {
      flag: "--dora",
      help: "train magnitude and direction separately",
      whenResuming: "fixed",
    }),
    initLoraWeights: option(initialisation, {
      flag: "--init <how>",
      help: "initialisation: true, false, gaussian, orthogonal, pissa, pissa_niter_N, olora or eva",
      default: true,
      whenResuming: "fixed",
    }),
    bias: option(choice<BiasMode>(["none", "all", "lora_only"]), {
      flag: "--bias <which>",
      help: "biases to train",
      default: "none",
      whenResuming: "fixed",
    }),
    modulesToSave: option(moduleNames<readonly string[]>(), {
      flag: "--modules-to-save <names>",
      help: "modules to train fully: a,b",
      whenResuming: "fixed",
    }),
  }),
  /** The optimizer's options; by default AdamW with a learning rate of 2e-4 and a weight decay of 0.01. */
  optimizer: group({
    /** The type of optimizer; `adamw`. */
    type: option(choice<OptimizerType>(OPTIMIZER_TYPES), {
      flag: "--optimizer <name>",
      help: "the optimizer; default: adamw",
      whenResuming: "fixed",
    }),
    /** The peak learning rate, at least 0; 2e-4, for Lion 2e-5, for SGD and Adafactor 1e-2. Adafactor's is relative to the weights. */
    lr: option(notNegative, {
      flag: "--lr <rate>",
      help: "learning rate; default: 2e-4, 2e-5 for lion, 1e-2 for sgd and adafactor",
      whenResuming: "reported",
      onCommandLine: positive,
    }),
    /** Share of the last update that SGD keeps, at least 0 and below 1; 0.9. Only for SGD. */
    momentum: option(belowOne("at least 0 and below 1"), {
      flag: "--momentum <share>",
      help: "momentum of sgd; default: 0.9",
      whenResuming: "reported",
    }),
    /** Decay of the running means of the gradient and of its square, each at least 0 and below 1; 0.9 and 0.999, for Lion 0.9 and 0.99. Not for SGD and Adafactor. */
    betas: option(betas, {
      help: "decay of the running means of the gradient and of its square; default: 0.9 and 0.999, for lion 0.9 and 0.99",
      whenResuming: "reported",
    }),
    /** Added to the denominator of an update, at least 0; 1e-8. Only for Adam and AdamW. */
    eps: option(notNegative, {
      help: "added to the denominator of an update of adam and adamw; default: 1e-8",
      whenResuming: "reported",
    }),
    /** The ratio of the learning rates of B and A (LoRA+, Hayou et al. 2024); 1. */
    loraPlusRatio: option(notNegative, {
      flag: "--loraplus-ratio <n>",
      help: "ratio of the learning rates of B and A",
      whenResuming: "fixed",
      onCommandLine: positive,
    }),
    /** Weight decay, at least 0; 0.01. Decoupled, except for Adam and SGD, which add it to the gradient. */
    weightDecay: option(notNegative, {
      flag: "--weight-decay <rate>",
      help: "weight decay",
      default: 0.01,
      whenResuming: "reported",
    }),
  }),
  /** The schedule of the learning rate after the warm-up; `linear`. */
  schedule: option(choice(SCHEDULES), {
    flag: "--schedule <name>",
    help: "schedule of the learning rate",
    default: "linear",
    whenResuming: "reported",
  }),
  /** The number of steps over which the learning rate rises from 0; 3% of all steps, rounded up, and 0 for a single step. */
  warmup: option(whole(0), {
    flag: "--warmup <n>",
    help: "warm-up steps, from 1/warmup of the learning rate; default: 3% of all steps",
    whenResuming: "reported",
  }),
  /** Clip gradients to this norm; 1. 0 disables clipping. */
  clipNorm: option(notNegative, {
    flag: "--clip-norm <norm>",
    help: "clip gradients to this norm; 0 disables",
    default: 1,
    whenResuming: "reported",
  }),
};
