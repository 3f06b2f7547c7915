import { Command, InvalidArgumentError } from "commander";
import { chatCommand } from "./chat.js";
import { declareCpuUse } from "./options/cpu.js";
import { devicesCommand } from "./devices.js";
import { doctorCommand } from "./doctor.js";
import { estimateCommand } from "./estimate.js";
import { evaluateCommand } from "./evaluate.js";
import { exportCommand } from "./export.js";
import { failure, UsageError } from "./terminal/failure.js";
import { finetuneCommand } from "./finetune/command.js";
import { generateCommand } from "./generate.js";
import { inspectCommand } from "./inspect.js";
import { mergeCommand } from "./merge.js";
import { flagOf } from "./finetune/option-names.js";
import { predictCommand } from "./predict.js";
import { runsCommand } from "./runs.js";
import { serveCommand } from "./serve.js";
import { sweepCommand } from "./sweep.js";
import { withOptionNames } from "../arguments/option-name.js";
import { readVersion } from "../package/version.js";
import { didYouMean } from "../arguments/suggest.js";
import { collect } from "./options/values.js";

/** Rejects repeated options unless they collect their values, since commander would keep only the last. */
function refusingRepeats(command: Command): Command {
  for (const option of command.options) {
    if (option.parseArg === collect) continue;
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
function throwing(command: Command): Command {
  return refusingRepeats(command)
    .exitOverride()
    .configureOutput({ writeErr: () => {}, outputError: () => {} })
    .allowExcessArguments(false)
    .showSuggestionAfterError();
}

/** Adds the closest choice to the error about an invalid value of an option with choices. */
function suggesting(command: Command): Command {
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
  const found = root.commands.find((one) => one.name() === name);
  if (found !== undefined) return found;
  const names = root.commands.map((one) => one.name());
  const what =
    name === undefined
      ? "give a command, one of"
      : `unknown command "${name}"${didYouMean(name, names)}; use one of`;
  throw new UsageError(`${what} ${names.join(", ")}`);
}

function helpCommand(root: Command): Command {
  return new Command("help")
    .description("show the commands, or the options of one")
    .argument("[command]", "the command to show")
    .action((name: string | undefined) => {
      (name === undefined ? root : findCommand(root, name)).outputHelp();
    });
}

function program(): Command {
  const root = throwing(new Command("lowrank"))
    .description("LoRA fine-tuning on any GPU or the CPU")
    .version(readVersion())
    .helpCommand(false)
    .action((_options, command: Command) => void findCommand(root, command.args[0]))
    .allowExcessArguments(true);
  const commands = [
    finetuneCommand(),
    declareCpuUse(generateCommand()),
    declareCpuUse(chatCommand()),
    declareCpuUse(evaluateCommand()),
    declareCpuUse(predictCommand()),
    declareCpuUse(serveCommand()),
    declareCpuUse(mergeCommand()),
    declareCpuUse(exportCommand()),
    inspectCommand(),
    estimateCommand(),
    sweepCommand(),
    runsCommand(),
    devicesCommand(),
    doctorCommand(),
  ];
  for (const command of [...commands, helpCommand(root)]) root.addCommand(suggesting(throwing(command)));
  return root;
}

/** Runs a command and resolves to the exit status. */
export async function runCli(argv: readonly string[]): Promise<number> {
  try {
    const root = program();
    let running: Command | undefined;
    root.hook("preAction", (_root, command) => void (running = command));
    const names = (option: string): string | undefined =>
      running === undefined ? option : flagOf(running, option);
    await withOptionNames(names, () => root.parseAsync(argv, { from: "user" }));
    return 0;
  } catch (error) {
    return failure(error);
  }
}
