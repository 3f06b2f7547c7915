import { Command } from "commander";
import { defaultHeldOut, defaultRecipe } from "../../models/default.js";
import { applyConfigFile } from "../config-file.js";
import { Interrupted } from "../failure.js";
import { onInterrupt } from "../interrupt.js";
import { bitsPerByte, sampleOf } from "./embedded.js";
import { profileLines } from "./profile.js";
import { checkFlags, declareFlags, type Flags, libraryOptions } from "./options.js";
import { humanRenderer, jsonRenderer } from "./render.js";
import { resumeCommand } from "./resume.js";

/** `argv`: the arguments from the command's name on, for the command that goes on with a stopped run. */
export function finetuneCommand(argv: readonly string[]): Command {
  const command = new Command("finetune").description("adapt a model to a text or to rows of text");
  return declareFlags(command).action(async () => {
    const { config } = command.opts<Flags>();
    if (config !== undefined) await applyConfigFile(command, config);
    const embedded = command.opts<Flags>().model === undefined && command.opts<Flags>().data === undefined;
    if (embedded) await applyConfigFile(command, defaultRecipe, "default");
    const flags = command.opts<Flags>();
    if (embedded && flags.evalSplit === undefined) flags.evalData ??= defaultHeldOut;
    checkFlags(flags);
    await finetune(flags, argv, embedded && !flags.json);
  });
}

async function finetune(flags: Flags, argv: readonly string[], sampling: boolean): Promise<void> {
  const { finetune: start } = await import("../../train/finetune.js");
  const show = flags.json ? jsonRenderer(process.stdout) : humanRenderer(process.stdout);
  const before = sampling ? await sampleOf(flags.device) : undefined;
  if (before !== undefined) process.stdout.write(`The model writes: ${before.text}\n\n`);

  const run = start(libraryOptions(flags));
  const interrupt = onInterrupt(() => {
    process.stderr.write("\nlowrank: finishing the step and saving; Ctrl-C again stops at once\n");
    run.stop().catch(() => {});
  });
  let untrained: number | undefined;
  try {
    for await (const event of run) {
      show(event);
      if (event.type === "profile") process.stderr.write(`${profileLines(event).join("\n")}\n`);
      if (event.type === "eval" && event.step === 0) untrained = event.loss;
    }
    const result = await run.result;
    if (result.stopped) {
      process.stderr.write(`lowrank: stopped after step ${result.steps}; to go on: ${resumeCommand(argv)}\n`);
    }
    if (interrupt.asked) throw new Interrupted("interrupted");
    if (before === undefined) return;
    if (untrained !== undefined && result.evalLoss !== null && flags.evalData === defaultHeldOut) {
      const [from, to] = [untrained, result.evalLoss].map((loss) => bitsPerByte(loss, before).toFixed(3));
      process.stdout.write(`held-out text: ${from} bits a byte before, ${to} after\n`);
    }
    const after = await sampleOf(flags.device, result.adapter);
    process.stdout.write(`\nWith the adapter it writes: ${after.text}\n`);
  } finally {
    interrupt.release();
  }
}
