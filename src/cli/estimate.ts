import { Command } from "commander";
import type { Estimate } from "../train/memory/estimate.js";
import type { FinetuneOptions } from "../train/options.js";
import { readCommandLine } from "./finetune/command.js";
import { declareFlags, makeFlagByName } from "./options/flags.js";
import { formatJsonLine } from "./terminal/escaped.js";
import { AnsweredNo } from "./terminal/failure.js";
import { formatSize, formatCount, formatOffloaded, formatPlural } from "./terminal/format.js";
import { runInterruptible } from "./terminal/interrupt.js";

export function createEstimateCommand(): Command {
  const command = new Command("estimate").description(
    "estimate the memory of a finetune run with these options, and whether it fits",
  );
  return declareFlags(command).action(async () => {
    const { flags, options } = await readCommandLine(command);
    await runInterruptible(async (signal) => {
      const { estimate } = await import("../train/memory/estimate.js");
      const estimated = await estimate({ ...options, signal });
      process.stdout.write(
        `${flags.json ? formatJsonLine(estimated) : formatEstimate(estimated).join("\n")}\n`,
      );
      if (estimated.fits === false) throw new AnsweredNo();
    });
  });
}

/** 12 ms, 3.4 s */
function formatSeconds(value: number): string {
  const [number, unit] = value < 1 ? [1000 * value, "ms"] : [value, "s"];
  return `${number < 10 ? number.toFixed(1) : formatCount(number)} ${unit}`;
}

/** Returns the flag of an option without its value: `--batch-size`. */
function nameFlag(name: keyof FinetuneOptions): string {
  return makeFlagByName(name).long as string;
}

/** Formats an estimate as lines of name and value. */
function formatEstimate(estimated: Estimate): string[] {
  const { peakBytes, mapped, weights, adapters, optimizer, activations, offloaded, device, limit, fits } =
    estimated;
  const [rows, tokens] = estimated.batch;
  const inFiles =
    mapped === 0 ? "" : mapped === weights ? ", in their file" : `, ${formatSize(mapped)} in their file`;
  const lines: [string, string][] = [
    [
      "peak",
      `${formatSize(peakBytes)} on ${device}${mapped === 0 ? "" : `, and ${formatSize(mapped)} of mapped weights`}`,
    ],
    ["weights", `${formatSize(weights)}${inFiles}`],
    ["adapters", `${formatSize(adapters)}, with their gradients`],
    ["optimizer", formatSize(optimizer)],
    [
      "activations",
      `${formatSize(activations)}, of batches of ${formatPlural(rows, "row")}, up to ${formatPlural(tokens, "token")} each`,
    ],
  ];
  if (offloaded !== undefined) lines.push(["offloaded", `${formatOffloaded(offloaded)} on the host`]);
  for (const other of estimated.further ?? [])
    lines.push([
      "further",
      `${formatSize(other.peakBytes)} on ${other.device}${other.mapped === 0 ? "" : `, and ${formatSize(other.mapped)} of mapped weights`}`,
    ]);
  lines.push(["a step", `about ${formatSeconds(estimated.secondsPerStep)}`]);
  if (limit !== undefined)
    lines.push(["fits", `${fits === true ? "yes" : "no"}: ${formatSize(limit)} available`]);
  if (estimated.suggestion !== undefined) {
    const flags = Object.entries(estimated.suggestion).map(([name, value]) => {
      const flag = nameFlag(name as keyof FinetuneOptions);
      return value === true ? flag : `${flag} ${String(value)}`;
    });
    lines.push(["instead", flags.join(" ")]);
    for (const cost of estimated.costs ?? []) lines.push(["", cost]);
    const given = estimated.given?.map(nameFlag);
    if (given !== undefined)
      lines.push([
        "",
        `${given.join(" and ")} ${given.length === 1 ? "was" : "were"} given explicitly, so finetune does not change it`,
      ]);
  } else if (fits === false) lines.push(["instead", "no settings were found that fit"]);
  return lines.map(([name, value]) => `  ${name.padEnd(11)} ${value}`);
}
