import { Command } from "commander";
import { LowrankError } from "../../errors.js";
import { locateDefaultHeldOut, locateDefaultRecipe } from "../../models/default.js";
import type { FinetuneResult, StartEvent, TrainEvent } from "../../train/events.js";
import { runOnRanks } from "../terminal/ranks.js";
import { applyConfigFile } from "./config-file.js";
import { escapeControls } from "../terminal/escaped.js";
import { Interrupted, notice, warn } from "../terminal/failure.js";
import { watchSignals } from "../terminal/interrupt.js";
import { watchStdout } from "../terminal/stdout.js";
import { computeBitsPerByte, readSample } from "./embedded.js";
import { formatProfile } from "./profile.js";
import {
  checkFlags,
  declareFlags,
  type Flags,
  listGivenOptions,
  toLibraryOptions,
  listOpenOptions,
  dropAdapterDefaults,
} from "./options.js";
import { createHumanRenderer, createJsonRenderer } from "./render.js";
import { formatResumeCommand } from "./resume.js";

export function createFinetuneCommand(): Command {
  const command = new Command("finetune").description("fine-tune a model on text, or on rows of text");
  return declareFlags(command).action(async () => {
    const { flags, options, embedded } = await readCommandLine(command);
    await runOnRanks((ranks) => finetune(flags, { ...options, ranks }, embedded && !flags.json));
  });
}

/** Returns the flags and options of a `finetune` command line. Without model, data, adapter and resume, uses the embedded model and text. */
export async function readCommandLine(command: Command): Promise<{
  flags: Flags;
  options: ReturnType<typeof toLibraryOptions>;
  embedded: boolean;
}> {
  const { config } = command.opts<Flags>();
  if (config !== undefined) await applyConfigFile(command, config);
  const { model, data, resume, adapter } = command.opts<Flags>();
  const embedded = [model, data, resume, adapter].every((value) => value === undefined);
  if (embedded) await applyConfigFile(command, locateDefaultRecipe(), "default");
  const all = command.opts<Flags>();
  const flags = adapter === undefined ? all : dropAdapterDefaults(command, all);
  if (embedded && flags.evalSplit === undefined) flags.evalData ??= [locateDefaultHeldOut()];
  checkFlags(flags);
  // A resumed run has stored options; only options that were given override them.
  const options =
    resume === undefined ? toLibraryOptions(flags, listOpenOptions(command)) : listGivenOptions(command);
  return { flags, options, embedded };
}

/** Returns the first of several devices, which samples. */
function selectFirst(device: string | readonly string[]): string {
  return typeof device === "string" ? device : (device[0] ?? "auto");
}

async function finetune(
  flags: Flags,
  options: ReturnType<typeof toLibraryOptions>,
  sampling: boolean,
): Promise<void> {
  const { finetune: start } = await import("../../train/finetune/finetune.js");
  const isFirst = options.ranks === undefined || options.ranks.rank === 0;
  const before = sampling && isFirst ? await readSample(selectFirst(flags.device)) : undefined;
  if (before !== undefined) process.stdout.write(`The model writes: ${escapeControls(before.text)}\n\n`);

  const telling = new Telling(flags, isFirst);
  const run = start(options);
  const interrupt = watchSignals(
    () => {
      const what = telling.started === undefined ? "stopping" : "finishing the step and saving";
      if (isFirst) process.stderr.write(`\nlowrank: ${what}; Ctrl-C again stops at once\n`);
      run.stop().catch(() => {});
    },
    { launched: options.ranks !== undefined },
  );
  try {
    for await (const event of run) telling.show(event);
    const result = await run.result;
    if (result.stopped && isFirst) notice(describeStop(result, telling, flags));
    telling.finish(result);
    if (interrupt.asked !== undefined) throw new Interrupted(interrupt.asked);
    if (before === undefined || telling.lost !== undefined) return;
    const { untrained } = telling;
    if (
      untrained !== undefined &&
      result.evalLoss !== null &&
      flags.evalData?.[0] === locateDefaultHeldOut()
    ) {
      const [from, to] = [untrained, result.evalLoss].map((loss) =>
        computeBitsPerByte(loss, before).toFixed(3),
      );
      process.stdout.write(`held-out text: ${from} bits a byte before, ${to} after\n`);
    }
    const after = await readSample(selectFirst(flags.device), result.adapter);
    process.stdout.write(`\nWith the adapter it writes: ${escapeControls(after.text)}\n`);
  } finally {
    interrupt.release();
    telling.release();
  }
}

/** Describes a run that was stopped, and how to resume it. */
function describeStop({ steps, adapter }: FinetuneResult, { started }: Telling, flags: Flags): string {
  if (started === undefined || adapter === "") return "stopped before the first step; nothing was saved";
  const { output } = started;
  const note =
    adapter === output ? "" : `; the earlier adapter in ${output} is kept until the run has finished`;
  return `stopped after step ${steps}${note}; resume with: ${formatResumeCommand(output, flags)}`;
}

/**
 * Prints events to standard output, on rank 0. If that fails because the reader is gone or the disk is full, the run continues, and
 * standard error reports its end.
 */
class Telling {
  started: StartEvent | undefined;
  /** The held-out loss before the first step. */
  untrained: number | undefined;
  lost: NodeJS.ErrnoException | undefined;
  readonly release: () => void;
  readonly #render: (event: TrainEvent) => void;

  constructor(flags: Flags, isFirst: boolean) {
    const silent = (): void => {};
    if (!isFirst) [this.#render, this.release] = [silent, silent];
    else [this.#render, this.release] = this.#open(flags);
  }

  #open(flags: Flags): [(event: TrainEvent) => void, () => void] {
    const render = flags.json ? createJsonRenderer(process.stdout) : createHumanRenderer(process.stdout);
    const release = watchStdout((error) => {
      if (this.lost === undefined) {
        const what = "the run continues and reports its end here";
        process.stderr.write(`lowrank: stdout cannot be written any more (${error.code}); ${what}\n`);
      }
      this.lost ??= error;
    });
    return [render, release];
  }

  show(event: TrainEvent): void {
    if (event.type === "start") this.started = event;
    if (event.type === "eval" && event.step === 0) this.untrained = event.loss;
    if (this.lost === undefined) this.#render(event);
    else if (event.type === "warning") warn(event.message);
    if (event.type === "profile") process.stderr.write(`${formatProfile(event).join("\n")}\n`);
  }

  /** Throws `ERR_WRITE` if standard output failed for another reason than a closed pipe, which may be intentional. */
  finish({ adapter, steps, stopped }: FinetuneResult): void {
    if (this.lost === undefined || stopped) return;
    const done = `done at step ${steps}: adapter ${adapter}`;
    if (this.lost.code === "EPIPE") process.stderr.write(`lowrank: ${done}\n`);
    else throw new LowrankError("ERR_WRITE", `${done}; stdout was cut off (${this.lost.code})`);
  }
}
