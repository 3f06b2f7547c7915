import { availableParallelism } from "node:os";

import type { Colors } from "picocolors/types.js";
import type { PlannedMemory, StartEvent } from "../../train/events.js";
import {
  formatSize,
  formatCount,
  formatOffloaded,
  formatPercent,
  formatPlural,
  formatRate,
  shorten,
} from "../terminal/format.js";

/** Display names of the optimizers. */
const OPTIMIZER_NAMES = {
  adamw: "AdamW",
  adam: "Adam",
  sgd: "SGD",
  adafactor: "Adafactor",
  lion: "Lion",
} as const satisfies Record<StartEvent["optimizer"], string>;

function listNames(targets: readonly string[], limit = 7): string {
  const shown = targets.slice(0, limit).join(", ");
  return targets.length > limit ? `${shown}, …` : shown;
}

/** Describes the training target: tokens or classes. */
function describeTarget({ labels, tokens }: StartEvent): string {
  if (labels === undefined) return `${formatPlural(tokens, "token")} to train on`;
  return `to tell ${labels.length} classes apart: ${listNames(labels)}`;
}

/** Describes storage and matmul precision of the weights. */
function describeStorage({ dtype, quantize, matmulPrecision, device }: StartEvent): string {
  if (quantize !== undefined) return `${dtype}, layers quantised to ${quantize}`;
  if (matmulPrecision === "f16" && device !== "cpu") return `${dtype}, products in f16 where the gpu has it`;
  return matmulPrecision === "bf16" && dtype === "bf16" && device === "cpu"
    ? "bf16, products in bf16"
    : dtype;
}

/** Describes the use of the processor, unless it is the default. */
function describeCpuUse({ threads, priority }: StartEvent): string {
  const fewer = threads !== undefined && threads < availableParallelism();
  const parts =
    fewer || (threads !== undefined && priority === "background") ? [formatPlural(threads, "thread")] : [];
  if (priority === "background") parts.push("low priority");
  return parts.map((part) => `, ${part}`).join("");
}

/** Describes the planned memory and the limit. */
function describeMemory({
  peakBytes,
  mapped,
  weights,
  adapters,
  optimizer,
  activations,
  offloaded,
  limit,
}: PlannedMemory): string {
  const lie = mapped === 0 ? "" : ` (${formatSize(mapped)} in files)`;
  const parts = `weights ${formatSize(weights)}${lie}, adapters ${formatSize(adapters)}, optimizer ${formatSize(optimizer)}, activations ${formatSize(activations)}`;
  const rest = offloaded === undefined ? "" : `; ${formatOffloaded(offloaded)} on the host`;
  return `${formatSize(peakBytes + mapped)} at most${limit === undefined ? "" : `, of ${formatSize(limit)}`}: ${parts}${rest}`;
}

/** Returns the line of each rank, with its process, its devices and its rows of a step. */
function listRanks({ ranks = [], sequences }: StartEvent): [string, string][] {
  const rows = sequences === undefined ? "row" : "sequence";
  return ranks.map(({ host, pid, devices, rows: count }, rank) => [
    rank === 0 ? "ranks" : "",
    `${rank}: process ${pid} on ${host}, ${devices.join(" and ")}, ${formatPlural(count, rows)} of each step`,
  ]);
}

/** Returns the line of the device; of several, one line each, with its rows of a step. */
function listDevices(start: StartEvent): [string, string][] {
  const { devices, device, deviceName, deviceReason } = start;
  if (devices === undefined)
    return [["device", `${device}: ${deviceName} (${deviceReason})${describeCpuUse(start)}`]];
  const rows = start.sequences === undefined ? "row" : "sequence";
  return devices.map((entry, i) => [
    i === 0 ? "devices" : "",
    `${entry.device}: ${entry.name}, ${formatPlural(entry.rows, rows)} of each step`,
  ]);
}

/** Summarises a run before it starts, as lines of name and value. */
export function summarise(start: StartEvent, colors: Colors): string[] {
  const rows: [string, string][] = [
    [
      "model",
      `${start.model} (${start.family}), ${shorten(start.parameters - start.trainable)} weights, ${describeStorage(start)}`,
    ],
    [
      "adapter",
      `rank ${start.rank}, alpha ${start.alpha}, on ${formatPlural(start.adapted, "layer")}: ${listNames(start.targets)}` +
        (start.adapter === undefined ? "" : `, trained further from ${start.adapter}`),
    ],
    [
      "trainable",
      `${formatCount(start.trainable)} of ${formatCount(start.parameters)} (${formatPercent(start.trainable / start.parameters)})`,
    ],
    ...listRanks(start),
    ...listDevices(start),
    [
      "data",
      `${formatPlural(start.examples, "row")}, ${describeTarget(start)}` +
        (start.sequences === undefined ? "" : `, in ${formatPlural(start.sequences, "sequence")}`) +
        (start.evalExamples > 0 ? `; ${formatPlural(start.evalExamples, "row")} held out` : ""),
    ],
    [
      "steps",
      `${formatCount(start.steps)} (${(start.steps / start.stepsPerEpoch).toFixed(2)} epochs) of ` +
        `${start.batchSize} × ${start.gradientAccumulation} ${start.sequences === undefined ? "rows" : "sequences"}, up to ${start.maxLength} tokens each`,
    ],
    [
      "optimizer",
      `${OPTIMIZER_NAMES[start.optimizer]}, learning rate ${formatRate(start.learningRate)}, ${start.schedule}, warm-up ${start.warmup}; seed ${start.seed}`,
    ],
    ["output", start.output],
  ];
  if (start.memory !== undefined) {
    rows.splice(-1, 0, ["memory", describeMemory(start.memory)]);
    if (start.memory.chosen.length > 0) rows.splice(-1, 0, ["chosen", start.memory.chosen.join("; ")]);
  }
  if (start.resumedFrom > 0) rows.push(["resumed", `from step ${formatCount(start.resumedFrom)}`]);
  return rows.map(([name, value]) => `  ${colors.dim(name.padEnd(10))} ${value}`);
}
