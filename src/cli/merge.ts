import { existsSync } from "node:fs";
import { Command, Option } from "commander";
import { LowrankError } from "../errors.js";
import { GGUF_BLOCKS, type GgufType, isBlockType } from "../gguf/types.js";
import type { SaveModelOptions } from "../models/files/save.js";
import { createMisuse, notice } from "./terminal/failure.js";
import { COMMAND_LINE_REFUSALS } from "../refusals/command-line.js";
import { type HubFlags, declareHubOptions, MODEL } from "./options/hub.js";
import { runInterruptible } from "./terminal/interrupt.js";
import { load, resolveModel } from "./options/models.js";
import { STORAGE_TYPES } from "../train/options/execution.js";
import { parseByteSize } from "./options/values.js";

interface Flags extends HubFlags {
  adapter: string;
  output: string;
  model?: string | undefined;
  format?: "safetensors" | "gguf" | undefined;
  dtype?: GgufType | undefined;
  maxShardSize?: number | undefined;
}

export function createMergeCommand(): Command {
  const command = new Command("merge").description(
    "write a model with an adapter merged into its weights, as a folder or for llama.cpp",
  );
  return declareHubOptions(command)
    .requiredOption("--adapter <folder>", "the adapter")
    .requiredOption("--output <folder>", "the output folder; for gguf a file")
    .option("--model <name>", `${MODEL}; default: the adapter's base model`)
    .addOption(
      new Option(
        "--format <name>",
        "the output format: a folder for transformers, or a file for llama.cpp; default: by the name of --output",
      ).choices(["safetensors", "gguf"]),
    )
    .addOption(
      new Option(
        "--dtype <type>",
        "storage of the weights; default: as in the model's file, per tensor. q8_0, q4_0 and other block types need gguf",
      ).choices([...STORAGE_TYPES, ...GGUF_BLOCKS]),
    )
    .option(
      "--max-shard-size <size>",
      "maximum size of one file of weights, such as 2GB; default: 5GB",
      parseByteSize,
    )
    .action(() => runInterruptible((signal) => merge(command.opts<Flags>(), signal)));
}

/** Whether a file's weights are block-quantised. */
async function isQuantised(path: string): Promise<boolean> {
  const [{ isGguf, openGguf }, { isBlock }] = await Promise.all([
    import("../gguf/read.js"),
    import("../tensor/tensor.js"),
  ]);
  if (!isGguf(path)) return false;
  const file = openGguf(path);
  return file.names().some((name) => isBlock(file.info(name).dtype));
}

async function merge(
  { adapter, output, model: base, revision, offline, format, dtype, maxShardSize }: Flags,
  signal: AbortSignal,
): Promise<void> {
  const gguf = format === "gguf" || (format === undefined && output.endsWith(".gguf"));
  if (!gguf && dtype !== undefined && isBlockType(dtype))
    throw createMisuse(COMMAND_LINE_REFUSALS.blocksOutsideGguf, dtype);
  if (gguf && maxShardSize !== undefined) throw createMisuse(COMMAND_LINE_REFUSALS.shardsOfGguf);
  if (existsSync(output)) {
    const what = gguf ? "a file" : "a folder";
    throw new LowrankError("ERR_OUTPUT_EXISTS", `${output} exists: name ${what} that doesn't`);
  }
  const { model } = await load({
    model: base,
    revision,
    offline,
    adapters: [adapter],
    device: "cpu",
    // With f32, sums are rounded only once, when they are written; and quantised weights cannot be merged into.
    ...((dtype === "f32" ||
      (dtype !== undefined && isBlockType(dtype)) ||
      (await isQuantised(resolveModel({ model: base, revision, adapters: [adapter] }).model))) && {
      dtype: "f32",
    }),
    signal,
  });
  try {
    const [{ mergeAndUnload }, { saveModel }] = await Promise.all([
      import("../lora/index.js"),
      import("../models/files/save.js"),
    ]);
    await mergeAndUnload(model, { safe: true });
    signal.throwIfAborted();
    const options: SaveModelOptions = { format: gguf ? "gguf" : "safetensors", dtype, signal };
    if (maxShardSize !== undefined) options.maxShardBytes = maxShardSize;
    options.onNotice = notice;
    await saveModel(model, output, options);
    process.stdout.write(`merged model ${output}\n`);
  } finally {
    model.dispose();
  }
}
