/** The options of storage, memory, devices, and output during a run. */
import type { Priority } from "../../device/cpu-use.js";
import { QUANTIZATIONS, type Quantization } from "../../models/quantization.js";
import { LOG_FORMATS, type LogFormat } from "../../runs/metrics.js";
import type { MatmulPrecision } from "../../tensor/scope.js";
import type { FloatDType } from "../../tensor/tensor.js";
import { option } from "./entry.js";
import {
  choice,
  devices,
  file,
  flag,
  memoryLimit,
  port,
  ranks,
  shares,
  signal,
  unchecked,
  whole,
} from "./kinds.js";

/** The storage types of weights. */
export const STORAGE_TYPES = ["f32", "f16", "bf16"] as const satisfies readonly FloatDType[];

export const EXECUTION_OPTIONS = {
  /** The storage type of the frozen weights; by default the file's. */
  dtype: option(choice<FloatDType>(STORAGE_TYPES), {
    flag: "--dtype <type>",
    help: "storage of the model's weights",
    whenResuming: "fixed",
    byMemory: "if absent",
  }),
  /** Quantise the linear layers of the blocks while loading the model (QLoRA), as `loadModel` does. */
  quantize: option(choice<Quantization>(QUANTIZATIONS), {
    flag: "--quantize <type>",
    help: "quantise the linear layers of the model's blocks when loading; other weights keep --dtype",
    whenResuming: "fixed",
    byMemory: "if absent",
  }),
  /**
   * Keep the weights of the blocks' linear layers on the host, for a model that is larger than the memory of a GPU. The GPU
   * holds the weights of two blocks at a time: it computes with one block while the next one is uploaded, in the forward
   * pass and again in the backward pass. Weights in the storage of the model's file are read from it; others
   * (`dtype`, `quantize`) are converted once and take memory of the host. Losses are the same, and steps take longer. No
   * effect on the cpu, which reads the host's memory in any case. False.
   */
  offloadWeights: option(flag, {
    flag: "--offload-weights",
    help: "keep the model's blocks on the host; a GPU has the weights of two blocks at a time, and steps take longer",
    default: false,
    whenResuming: "free",
    byMemory: "if absent",
  }),
  /**
   * The memory limit of the run on its device, in bytes, including memory-mapped weights: a number, a decimal size such
   * as `2GB`, or `auto`, which is seven eighths of the free memory at the start. A run above the limit is made to fit by
   * gradient checkpointing, smaller batches with more accumulation, smaller weight storage (bf16, q8_0, nf4), on a GPU
   * offloaded weights, and shorter rows, in this order and no further than needed. Given values of checkpointing, storage,
   * offloading and length are kept, and so is the number of rows per step. The start event reports the choices, and a resumed run keeps them. A run that cannot fit
   * throws `ERR_OUT_OF_MEMORY` before the model is loaded, with the options that prevent a fit. Without a limit nothing is
   * changed, and a run is refused if its tensors alone exceed the free memory.
   */
  memory: option(memoryLimit, {
    flag: "--memory <size>",
    help: "memory limit of the run, such as 2GB, or auto for the free memory; selects checkpointing, batch size, storage, offloading and length to fit",
    whenResuming: "reported",
  }),
  /** The precision of products with weights: `exact`, `bf16` (on the cpu) or `f16` (on a GPU); by default as set by `setMatmulPrecision`. */
  matmulPrecision: option(choice<MatmulPrecision>(["exact", "bf16", "f16"]), {
    flag: "--matmul-precision <precision>",
    help: "precision of products with weights: bf16 on the CPU with bf16 weights (the default with --dtype bf16), f16 on a GPU",
    whenResuming: "fixed",
  }),
  /**
   * The device: `auto`, `cpu`, `gpu`, `gpu:1`, …; `auto`, which is a hardware GPU if there is one, otherwise the cpu.
   * Several devices, such as `["gpu:0", "gpu:1"]`, divide the rows of each step: each holds the model, their gradients are
   * added in the order of the list, and the first device updates the adapter for all. The number of rows per step stays
   * the same. Without dropout the losses equal the losses of one device, apart from rounding.
   */
  device: option(devices, {
    flag: "--device <names>",
    help: "auto, cpu, gpu or gpu:N, or several, such as gpu:0,gpu:1, which divide the rows of each step",
    default: "auto",
    whenResuming: "reported",
  }),
  /**
   * The share of each of several devices in the rows of a step, such as `[3, 1]`. By default the measured rates of the
   * devices in eighths of the fastest; equal devices have equal shares. The run keeps its shares when it is resumed.
   */
  deviceShares: option(shares, {
    flag: "--device-shares <numbers>",
    help: "the shares of several devices in the rows of a step, such as 3,1; default: by their measured rates",
    whenResuming: "reported",
  }),
  /**
   * The processes that train the adapter together, from `connect()` of the package `lowrank-mpi`. The rows of each step are
   * divided equally among them, rank 0 writes and reports, and the losses equal the losses of one process, apart from
   * rounding. The command connects the ranks that `mpirun` or `srun` has started.
   */
  ranks: option(ranks, {
    help: "the processes that train the adapter together, from lowrank-mpi's connect()",
    whenResuming: "free",
    recorded: false,
  }),
  /**
   * With several ranks, add gradients in rank order, so that two runs have the same bits. With `false` the MPI library
   * chooses the order. True.
   */
  deterministic: option(flag, {
    flag: "--deterministic <true|false>",
    help: "with several ranks, add gradients in rank order; false lets the MPI library choose the order",
    default: true,
    whenResuming: "reported",
  }),
  /**
   * The maximum number of threads that compute on the cpu at once, including tokenisation: from 1 to the number of cores.
   * By default one for each core, or one less with `priority: "background"`. It does not affect the results, and a
   * resumed run may change it.
   */
  threads: option(unchecked<number>("number"), {
    flag: "--threads <n>",
    help: "the maximum number of computing threads on the CPU; default: one per core",
    whenResuming: "reported",
    onCommandLine: whole(1),
  }),
  /**
   * `"background"` leaves one core free and gives the engine's threads a lower priority than other programs, which stay
   * responsive. It slows a run down only while they need the processor. `"normal"` by default, and `"background"` in a
   * run of `lowrank/electron`. A resumed run may change it.
   */
  priority: option(choice<Priority>(["normal", "background"]), {
    flag: "--priority <priority>",
    help: "background leaves one core free and lets other programs run first; default: normal",
    whenResuming: "reported",
  }),
  /** A file for a trace of every operation, in a format that Perfetto opens. It slows the run down a little. */
  profile: option(file, {
    flag: "--profile <file>",
    help: "write a trace for Perfetto, and print a table by operation at the end",
    whenResuming: "free",
    recorded: false,
  }),
  /**
   * Write the run's figures into the output folder in another format too: `csv`, one row per step, as `metrics.csv`, or
   * TensorBoard's, in `tensorboard/`. None by default.
   */
  log: option(choice<LogFormat>(LOG_FORMATS), {
    flag: "--log <format>",
    help: "also log the run's metrics in this format",
    whenResuming: "free",
  }),
  /**
   * Serve a page about the run on this machine, as `run.dashboard()` does: at the given port of 127.0.0.1, or with `true`
   * at a free one. A `dashboard` event reports its address. False.
   */
  dashboard: option(port, {
    flag: "--dashboard [port]",
    help: "serve a page about the run, only on this machine",
    default: false,
    whenResuming: "free",
    recorded: false,
  }),
  /**
   * Replace the adapter and the checkpoints of an earlier run in the output folder, when this run is done. The folder is
   * unchanged until this run saves something, and files that no run wrote are kept.
   */
  overwrite: option(flag, {
    flag: "--yes",
    help: "replace an earlier run in the output folder once this one has finished",
    default: false,
    whenResuming: "free",
    recorded: false,
  }),
  /** Aborts the run within a step, with the signal's reason. To end it with a checkpoint, use `stop()`. */
  signal: option(signal, { help: "aborts the run", whenResuming: "free", recorded: false }),
};
