import { Command } from "commander";
import { defaultRecipe } from "../../models/default.js";
import type { Finetune } from "../../train/options.js";
import { applyConfigFile } from "../config-file.js";
import { Interrupted } from "../failure.js";
import { onInterrupt } from "../interrupt.js";
import { checkFlags, declareFlags, type Flags, libraryOptions } from "./options.js";
import { humanRenderer, jsonRenderer } from "./render.js";
import { resumeCommand } from "./resume.js";
import { sampleOf } from "./sample.js";

/** `argv`: the arguments from the command's name on, for the command that goes on with a stopped run. */
export function finetuneCommand(argv: readonly string[]): Command {
  const command = new Command("finetune").description("adapt a model to a text or to rows of text");
  return declareFlags(command).action(async () => {
    const { config } = command.opts<Flags>();
    if (config !== undefined) await applyConfigFile(command, config);
    const embedded = command.opts<Flags>().model === undefined && command.opts<Flags>().data === undefined;
    if (embedded) await applyConfigFile(command, defaultRecipe, "default");
    const flags = command.opts<Flags>();
    checkFlags(flags);
    await finetune(flags, argv, embedded);
  });
}

async function finetune(flags: Flags, argv: readonly string[], embedded: boolean): Promise<void> {
  const options = libraryOptions(flags);
  const module = "../../train/finetune.js";
  const { finetune: start } = (await import(module)) as { finetune: Finetune };
  const show = flags.json ? jsonRenderer(process.stdout) : humanRenderer(process.stdout);
  const withSample = embedded && !flags.json;
  if (withSample) process.stdout.write(await sampleOf("before", flags.device));

  const run = start(options);
  const interrupt = onInterrupt(() => {
    process.stderr.write("\nlowrank: finishing the step and saving; Ctrl-C again stops at once\n");
    run.stop().catch(() => {});
  });
  try {
    for await (const event of run) show(event);
    const result = await run.result;
    if (result.stopped) {
      process.stderr.write(`lowrank: stopped after step ${result.steps}; to go on: ${resumeCommand(argv)}\n`);
    }
    if (interrupt.asked) throw new Interrupted("interrupted");
    if (withSample) process.stdout.write(await sampleOf("after", flags.device, result.adapter));
  } finally {
    interrupt.release();
  }
}
