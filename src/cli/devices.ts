import { Command } from "commander";
import { bytes } from "./format.js";

export function devicesCommand(): Command {
  const command = new Command("devices").description("what this machine can train on, and what auto chooses");
  return command
    .option("--json", "one device a line, as JSON")
    .action(() => devices(command.opts<{ json?: boolean | undefined }>().json ?? false));
}

async function devices(json: boolean): Promise<void> {
  const { chooseDevice, devices: all } = await import("../device.js");
  const { device: chosen, why } = chooseDevice("auto");
  for (const one of all()) {
    if (json) process.stdout.write(`${JSON.stringify(one)}\n`);
    else {
      const kind = one.kind === "cpu" ? [] : [`${one.kind} GPU`, one.backend, one.driver];
      const memory = one.memory === undefined ? undefined : bytes(one.memory);
      const details = [...kind, memory].filter((detail) => detail !== undefined && detail !== "");
      process.stdout.write(
        `${one.device.padEnd(7)} ${one.name}${details.length > 0 ? ` (${details.join(", ")})` : ""}\n`,
      );
    }
  }
  if (!json) process.stdout.write(`auto    ${chosen}: ${why}\n`);
}
