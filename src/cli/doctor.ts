import { Command } from "commander";
import type { Device } from "../device/device.js";
import { formatJsonLine } from "./terminal/escaped.js";
import { AnsweredNo } from "./terminal/failure.js";
import { runInterruptible } from "./terminal/interrupt.js";
import * as value from "./options/values.js";

interface Options {
  device?: Device | undefined;
  quick?: boolean | undefined;
  json?: boolean | undefined;
}

export function createDoctorCommand(): Command {
  const command = new Command("doctor").description(
    "test the GPUs and the processor, and report what is wrong",
  );
  return command
    .option("--device <name>", "the device to test: cpu, gpu or gpu:N; default: all", value.parseDevice)
    .option("--quick", "run the short test that device auto runs before it first uses a GPU")
    .option("--json", "print the report as one line of JSON")
    .addHelpText(
      "after",
      "\nEach device is tested in a separate process, so a driver that crashes or hangs is reported. The exit status is 1" +
        "\nif something is wrong. Paste the report into an issue.",
    )
    .action(async () => {
      const options = command.opts<Options>();
      const { diagnose } = await import("../diagnose/diagnose.js");
      const { formatReport } = await import("../diagnose/report.js");
      const diagnosis = await runInterruptible(async (signal) =>
        diagnose({ device: options.device, quick: options.quick, signal, onProgress: createProgressLine() }),
      );
      process.stdout.write(
        options.json === true ? `${formatJsonLine(diagnosis)}\n` : formatReport(diagnosis),
      );
      if (!diagnosis.healthy) throw new AnsweredNo();
    });
}

/** Shows the running test step on one line of a terminal. */
function createProgressLine():
  ((progress: { device: string; name: string; step: number; steps: number }) => void) | undefined {
  const { stderr } = process;
  if (!stderr.isTTY) return undefined;
  return ({ device, name, step, steps }) => {
    const text = device === "none" ? name : `${device}: ${step} of ${steps}, ${name}`;
    stderr.write(`\r\u001b[K${step === steps ? "" : text.slice(0, (stderr.columns ?? 80) - 1)}`);
  };
}
