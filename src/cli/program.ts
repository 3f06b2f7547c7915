import { Command, InvalidArgumentError } from "commander";
import { createChatCommand } from "./chat.js";
import { declareCpuUse } from "./options/cpu.js";
import { createDevicesCommand } from "./devices.js";
import { createDoctorCommand } from "./doctor.js";
import { createEstimateCommand } from "./estimate.js";
import { createEvaluateCommand } from "./evaluate.js";
import { createExportCommand } from "./export.js";
import { reportFailure, UsageError } from "./terminal/failure.js";
import { createFinetuneCommand } from "./finetune/command.js";
import { createGenerateCommand } from "./generate.js";
import { createInspectCommand } from "./inspect.js";
import { createMergeCommand } from "./merge.js";
import { adviseUnknownFlag } from "./finetune/foreign-flags.js";
import { findFlag } from "./finetune/option-names.js";
import { createPredictCommand } from "./predict.js";
import { createRunsCommand } from "./runs.js";
import { createServeCommand } from "./serve.js";
import { createSweepCommand } from "./sweep.js";
import { runWithOptionNames } from "../arguments/option-name.js";
import { readVersion } from "../package/version.js";
import { didYouMean } from "../arguments/suggest.js";
import { REPEATABLE } from "./options/values.js";

/** Rejects repeated options unless they collect their values, since commander would keep only the last. */
function refuseRepeats(command: Command): Command {
  for (const option of command.options) {
    if (REPEATABLE.has(option.parseArg)) continue;
    let given = false;
    command.on(`option:${option.name()}`, () => {
      const flag = option.long ?? option.flags;
      if (given) throw new UsageError(`${flag} is given twice; give it once`);
      given = true;
    });
  }
  return command;
}

/** Makes commander throw errors, which are printed on one line at the top level. */
function makeThrowing(command: Command): Command {
  return refuseRepeats(command)
    .exitOverride((error) => {
      throw adviseUnknownFlag(command, error);
    })
    .configureOutput({ writeErr: () => {}, outputError: () => {} })
    .allowExcessArguments(false)
    .showSuggestionAfterError();
}

/** Adds the closest choice to the error about an invalid value of an option with choices. */
function addSuggestions(command: Command): Command {
  for (const option of command.options) {
    const { argChoices: choices, parseArg } = option;
    if (choices === undefined || parseArg === undefined) continue;
    option.argParser((value: string, previous: unknown) => {
      if (choices.includes(value)) return parseArg(value, previous);
      throw new InvalidArgumentError(
        `Allowed choices are ${choices.join(", ")}${didYouMean(value, choices)}.`,
      );
    });
  }
  return command;
}

/** Returns the command called `name`. Throws `UsageError` with a suggestion if there is none. */
function findCommand(root: Command, name: string | undefined): Command {
  const found = root.commands.find((command) => command.name() === name);
  if (found !== undefined) return found;
  const names = root.commands.map((command) => command.name());
  const what =
    name === undefined
      ? "give a command, one of"
      : `unknown command "${name}"${didYouMean(name, names)}; use one of`;
  throw new UsageError(`${what} ${names.join(", ")}`);
}

function createHelpCommand(root: Command): Command {
  return new Command("help")
    .description("show the commands, or the options of one")
    .argument("[command]", "the command to show")
    .action((name: string | undefined) => {
      (name === undefined ? root : findCommand(root, name)).outputHelp();
    });
}

function createProgram(): Command {
  const root = makeThrowing(new Command("lowrank"))
    .description("LoRA fine-tuning on any GPU or the CPU")
    .version(readVersion())
    .helpCommand(false)
    .action((_options, command: Command) => void findCommand(root, command.args[0]))
    .allowExcessArguments(true);
  const commands = [
    createFinetuneCommand(),
    declareCpuUse(createGenerateCommand()),
    declareCpuUse(createChatCommand()),
    declareCpuUse(createEvaluateCommand()),
    declareCpuUse(createPredictCommand()),
    declareCpuUse(createServeCommand()),
    declareCpuUse(createMergeCommand()),
    declareCpuUse(createExportCommand()),
    createInspectCommand(),
    createEstimateCommand(),
    createSweepCommand(),
    createRunsCommand(),
    createDevicesCommand(),
    createDoctorCommand(),
  ];
  for (const command of [...commands, createHelpCommand(root)])
    root.addCommand(addSuggestions(makeThrowing(command)));
  return root;
}

/** Runs a command and resolves to the exit status. */
export async function runCli(argv: readonly string[]): Promise<number> {
  try {
    const root = createProgram();
    let running: Command | undefined;
    root.hook("preAction", (_root, command) => void (running = command));
    const names = (option: string): string | undefined =>
      running === undefined ? option : findFlag(running, option);
    await runWithOptionNames(names, () => root.parseAsync(argv, { from: "user" }));
    return 0;
  } catch (error) {
    return reportFailure(error);
  }
}
