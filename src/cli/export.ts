import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { Command, Option } from "commander";
import { LowrankError } from "../errors.js";
import type { PretrainedModel } from "../models/pretrained.js";
import type { AdapterFormat } from "../lora/formats/convert.js";
import { misused, notice, UsageError } from "./failure.js";
import { COMMAND_LINE_REFUSALS } from "../refusals/command-line.js";
import { type HubFlags, hubOptions } from "./hub.js";
import { interruptible } from "./interrupt.js";
import { load, modelFor } from "./models.js";

interface Flags extends HubFlags {
  adapter: string;
  format: AdapterFormat;
  output: string;
  model?: string | undefined;
}

export function exportCommand(): Command {
  const command = new Command("export").description("write an adapter in another format");
  return hubOptions(command)
    .requiredOption("--adapter <path>", "the adapter: a folder of PEFT's, or a file of kohya's or loralib's")
    .addOption(
      new Option("--format <name>", "what is written; gguf is for llama.cpp's --lora")
        .choices(["gguf", "peft", "kohya", "loralib"])
        .makeOptionMandatory(),
    )
    .requiredOption("--output <path>", "the file; a folder for peft")
    .option(
      "--model <name>",
      "the model, a folder, a GGUF file or owner/name[@revision] at the hub, where the adapter is a file that names no modules of its own; " +
        "for gguf the adapter's own unless given",
    )
    .action(() => interruptible((signal) => write(command.opts<Flags>(), signal)));
}

async function write(
  { adapter, format, output, model: path, revision, offline }: Flags,
  signal: AbortSignal,
): Promise<void> {
  if (path === undefined && (revision ?? offline) !== undefined)
    throw misused(COMMAND_LINE_REFUSALS.revisionWithoutModel);
  if (existsSync(output))
    throw new LowrankError("ERR_OUTPUT_EXISTS", `${output} exists: name one that doesn't`);
  const { convertAdapter } = await import("../lora/index.js");
  const base = path === undefined ? ownBase(adapter, format) : { model: path, revision };
  const model =
    base === undefined ? undefined : (await load({ ...base, offline, device: "cpu", signal })).model;
  try {
    await convertAdapter(adapter, output, { format, ...(model === undefined ? {} : { model }) });
    process.stdout.write(`adapter ${output}\n`);
    if (format === "gguf") await reportTemplate(adapter, model);
  } finally {
    model?.dispose();
  }
}

/** Says how llama.cpp takes an adapter's chat template, which its file cannot hold, if the base has another one. */
async function reportTemplate(adapter: string, model: PretrainedModel | undefined): Promise<void> {
  if (!existsSync(join(adapter, "chat_template.jinja"))) return;
  const [{ templatesBeside }, { inFolder }, { baseOfAdapter }] = await Promise.all([
    import("../models/chat-template-files.js"),
    import("../models/beside.js"),
    import("../models/adapter-base.js"),
  ]);
  const base = model === undefined ? baseOfAdapter(adapter).model : undefined;
  const own = base === undefined ? model?.tokenizer?.currentTemplates() : templatesBeside(inFolder(base));
  if (own?.text === templatesBeside(inFolder(adapter))?.text) return;
  const how = `--chat-template-file ${join(adapter, "chat_template.jinja")}`;
  notice(`the file does not hold the adapter's chat template; llama.cpp takes it with ${how}`);
}

/**
 * The base of an adapter for llama.cpp that is no folder here, a GGUF file or a model at a hub: of a folder
 * `convertAdapter` itself reads the configuration, and names whatever else is missing.
 */
function ownBase(adapter: string, format: AdapterFormat): ReturnType<typeof modelFor> | undefined {
  if (format !== "gguf" || !existsSync(join(adapter, "adapter_config.json"))) return undefined;
  try {
    const base = modelFor({ adapters: [adapter] });
    return existsSync(base.model) && statSync(base.model).isDirectory() ? undefined : base;
  } catch (error) {
    if (error instanceof UsageError) return undefined;
    throw error;
  }
}
