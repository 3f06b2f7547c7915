import { Command } from "commander";
import { LowrankError } from "../errors.js";
import type { Device } from "../device/device.js";
import { formatJsonLine } from "./terminal/escaped.js";
import { createMisuse, warn } from "./terminal/failure.js";
import { COMMAND_LINE_REFUSALS } from "../refusals/command-line.js";
import { formatSize } from "./terminal/format.js";
import { formatTuning } from "./tuning-table.js";
import * as value from "./options/values.js";

interface Options {
  tune?: boolean | undefined;
  device?: Device | undefined;
  json?: boolean | undefined;
}

export function createDevicesCommand(): Command {
  const command = new Command("devices").description(
    "list the devices of this machine, and the device that auto selects",
  );
  return command
    .option("--tune", "autotune a GPU's kernels now, and print the time of each variant")
    .option("--device <name>", "with --tune: the GPU, gpu for the best one or gpu:N", value.parseDevice)
    .option("--json", "print one JSON object per device; with --tune one per problem shape")
    .addHelpText(
      "after",
      "\nRuns also autotune at the first use of a problem shape on a GPU, for at most two seconds, and store the fastest" +
        "\nvariant in the user's cache folder. LOWRANK_TUNE=off disables autotuning and its stored results;" +
        "\nLOWRANK_TUNE=on also enables it for software GPUs.",
    )
    .action(() => {
      const options = command.opts<Options>();
      if (options.tune === true) return tune(options);
      if (options.device !== undefined) throw createMisuse(COMMAND_LINE_REFUSALS.deviceOfList);
      return printDevices(options.json ?? false);
    });
}

async function printDevices(json: boolean): Promise<void> {
  const { chooseDevice, devices: all } = await import("../device/device.js");
  const { device: chosen, why } = chooseDevice("auto");
  for (const device of all()) {
    if (json) process.stdout.write(`${formatJsonLine(device)}\n`);
    else {
      const kind = device.kind === "cpu" ? [] : [`${device.kind} GPU`, device.backend, device.driver];
      const memory = device.memory === undefined ? undefined : formatSize(device.memory);
      const details = [...kind, memory].filter((detail) => detail !== undefined && detail !== "");
      process.stdout.write(
        `${device.device.padEnd(7)} ${device.name}${details.length > 0 ? ` (${details.join(", ")})` : ""}\n`,
      );
    }
  }
  if (!json) process.stdout.write(`auto    ${chosen}: ${why}\n`);
}

async function tune({ device = "gpu", json = false }: Options): Promise<void> {
  const { tuneDevice } = await import("../device/device.js");
  const requested = device === "auto" ? "gpu" : device;
  if (!json) process.stderr.write("autotuning kernels …\n");
  const report = await tuneDevice(requested);
  if (json) for (const tuned of report.classes) process.stdout.write(`${formatJsonLine(tuned)}\n`);
  else process.stdout.write(formatTuning(report));
  for (const failure of report.failures) warn(failure);
  if (report.classes.length === 0 && report.failures.length > 0)
    throw new LowrankError("ERR_DEVICE_LOST", `no kernel variant could be tested on ${report.name}`);
}
