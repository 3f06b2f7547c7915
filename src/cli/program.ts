import { readFileSync } from "node:fs";
import { Command } from "commander";
import { chatCommand } from "./chat.js";
import { devicesCommand } from "./devices.js";
import { estimateCommand } from "./estimate.js";
import { evaluateCommand } from "./evaluate.js";
import { exportCommand } from "./export.js";
import { failure, UsageError } from "./failure.js";
import { finetuneCommand } from "./finetune/command.js";
import { generateCommand } from "./generate.js";
import { inspectCommand } from "./inspect.js";
import { mergeCommand } from "./merge.js";
import { runsCommand } from "./runs.js";
import { inPackage } from "../place.js";

function version(): string {
  return (JSON.parse(readFileSync(inPackage("package.json"), "utf8")) as { version: string }).version;
}

/** Errors are thrown, to be told in one line at the top. */
function throwing(command: Command): Command {
  return command
    .exitOverride()
    .configureOutput({ writeErr: () => {}, outputError: () => {} })
    .allowExcessArguments(false)
    .showSuggestionAfterError();
}

function program(): Command {
  const root = throwing(new Command("lowrank"))
    .description("LoRA fine-tuning on any GPU or the CPU")
    .version(version())
    .action((_options, command: Command) => {
      const [name] = command.args;
      const names = root.commands.map((one) => one.name()).join(", ");
      throw new UsageError(
        `${name === undefined ? "which command?" : `unknown command "${name}":`} one of ${names}`,
      );
    })
    .allowExcessArguments(true);
  const commands = [
    finetuneCommand(),
    generateCommand(),
    chatCommand(),
    evaluateCommand(),
    mergeCommand(),
    exportCommand(),
    inspectCommand(),
    estimateCommand(),
    runsCommand(),
    devicesCommand(),
  ];
  for (const command of commands) root.addCommand(throwing(command));
  return root;
}

/** Runs a command; resolves to the exit status. */
export async function runCli(argv: readonly string[]): Promise<number> {
  try {
    await program().parseAsync(argv, { from: "user" });
    return 0;
  } catch (error) {
    return failure(error);
  }
}
