import { existsSync } from "node:fs";
import { Command } from "commander";
import { LowrankError } from "../errors.js";
import { type HubFlags, hubOptions, MODEL } from "./hub.js";
import { interruptible } from "./interrupt.js";
import { load } from "./models.js";

interface Flags extends HubFlags {
  adapter: string;
  output: string;
  model?: string | undefined;
}

export function mergeCommand(): Command {
  const command = new Command("merge").description("write a model with an adapter merged into its weights");
  return hubOptions(command)
    .requiredOption("--adapter <folder>", "the adapter")
    .requiredOption("--output <folder>", "where the merged model goes")
    .option("--model <name>", `${MODEL}; the adapter's own unless given`)
    .action(() => interruptible((signal) => merge(command.opts<Flags>(), signal)));
}

async function merge(
  { adapter, output, model: base, revision, offline }: Flags,
  signal: AbortSignal,
): Promise<void> {
  if (existsSync(output)) {
    throw new LowrankError("ERR_OUTPUT_EXISTS", `${output} exists: name a folder that doesn't`);
  }
  const { model } = await load({
    model: base,
    revision,
    offline,
    adapters: [adapter],
    device: "cpu",
    signal,
  });
  try {
    const [{ mergeAndUnload }, { saveModel }] = await Promise.all([
      import("../lora/index.js"),
      import("../models/save.js"),
    ]);
    await mergeAndUnload(model, { safe: true });
    signal.throwIfAborted();
    await saveModel(model, output);
    process.stdout.write(`merged model ${output}\n`);
  } finally {
    model.dispose();
  }
}
