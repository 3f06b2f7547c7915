import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { Command, Option } from "commander";
import { LowrankError } from "../errors.js";
import type { PretrainedModel } from "../models/pretrained.js";
import type { AdapterFormat } from "../lora/formats/convert.js";
import { createMisuse, notice, UsageError } from "./terminal/failure.js";
import { COMMAND_LINE_REFUSALS } from "../refusals/command-line.js";
import { type HubFlags, declareHubOptions } from "./options/hub.js";
import { runInterruptible } from "./terminal/interrupt.js";
import { load, resolveModel } from "./options/models.js";

interface Flags extends HubFlags {
  adapter: string;
  format: AdapterFormat;
  output: string;
  model?: string | undefined;
}

export function createExportCommand(): Command {
  const command = new Command("export").description("write an adapter in another format");
  return declareHubOptions(command)
    .requiredOption("--adapter <path>", "the adapter: a PEFT folder, or a kohya or loralib file")
    .addOption(
      new Option("--format <name>", "the output format; gguf is for llama.cpp's --lora")
        .choices(["gguf", "peft", "kohya", "loralib"])
        .makeOptionMandatory(),
    )
    .requiredOption("--output <path>", "the output file; for peft a folder")
    .option(
      "--model <name>",
      "the base model: a folder, a GGUF file or owner/name[@revision] at the hub. Needed for kohya and loralib files; " +
        "default for gguf: the adapter's base model",
    )
    .action(() => runInterruptible((signal) => write(command.opts<Flags>(), signal)));
}

async function write(
  { adapter, format, output, model: path, revision, offline }: Flags,
  signal: AbortSignal,
): Promise<void> {
  if (path === undefined && (revision ?? offline) !== undefined)
    throw createMisuse(COMMAND_LINE_REFUSALS.revisionWithoutModel);
  if (existsSync(output))
    throw new LowrankError("ERR_OUTPUT_EXISTS", `${output} exists: name one that doesn't`);
  const { convertAdapter } = await import("../lora/index.js");
  const base = path === undefined ? findOwnBase(adapter, format) : { model: path, revision };
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

/** Explains how to pass an adapter's chat template to llama.cpp, since the output cannot contain it, if it differs from the base's. */
async function reportTemplate(adapter: string, model: PretrainedModel | undefined): Promise<void> {
  if (!existsSync(join(adapter, "chat_template.jinja"))) return;
  const [{ readStoredTemplates }, { openCompanions }, { findBaseOfAdapter: baseOfAdapter }] =
    await Promise.all([
      import("../models/chat-template-files.js"),
      import("../models/companion-files.js"),
      import("../models/adapter-base.js"),
    ]);
  const base = model === undefined ? baseOfAdapter(adapter).model : undefined;
  const templates =
    base === undefined ? model?.tokenizer?.readCurrentTemplates() : readStoredTemplates(openCompanions(base));
  if (templates?.text === readStoredTemplates(openCompanions(adapter))?.text) return;
  const how = `--chat-template-file ${join(adapter, "chat_template.jinja")}`;
  notice(`the file does not contain the adapter's chat template; pass it to llama.cpp with ${how}`);
}

/**
 * Returns the base model to load for a gguf export: a GGUF file or a hub model. Undefined for a local folder, whose
 * configuration `convertAdapter` reads itself; it also reports a missing base.
 */
function findOwnBase(adapter: string, format: AdapterFormat): ReturnType<typeof resolveModel> | undefined {
  if (format !== "gguf" || !existsSync(join(adapter, "adapter_config.json"))) return undefined;
  try {
    const base = resolveModel({ adapters: [adapter] });
    return existsSync(base.model) && statSync(base.model).isDirectory() ? undefined : base;
  } catch (error) {
    if (error instanceof UsageError) return undefined;
    throw error;
  }
}
