/** Generates docs/refused.md from the tables that errors are made from. */
import { GGUF_REFUSALS } from "../../src/gguf/refusals.js";
import { ADAPTER_REFUSALS } from "../../src/refusals/adapters.js";
import { COMMAND_LINE_REFUSALS } from "../../src/refusals/command-line.js";
import { FILE_REFUSALS } from "../../src/refusals/files.js";
import { LAYER_REFUSALS } from "../../src/refusals/layers.js";
import { MODEL_REFUSALS } from "../../src/refusals/models.js";
import { QUANTISED_REFUSALS } from "../../src/refusals/quantised.js";
import type { Refusal } from "../../src/refusals/refusal.js";
import { SWEEP_REFUSALS } from "../../src/refusals/sweep.js";
import { TRAINING_REFUSALS } from "../../src/refusals/training.js";
import { RESUME_REFUSALS } from "../../src/train/options/refusals.js";

/** A table of refusals. */
export interface Section {
  title: string;
  refusals: Readonly<Record<string, Refusal>>;
}

export const SECTIONS: readonly Section[] = [
  { title: "Adapters", refusals: ADAPTER_REFUSALS },
  { title: "Adapters in files", refusals: FILE_REFUSALS },
  { title: "GGUF", refusals: GGUF_REFUSALS },
  { title: "Models", refusals: MODEL_REFUSALS },
  { title: "Quantised weights", refusals: QUANTISED_REFUSALS },
  { title: "Layers", refusals: LAYER_REFUSALS },
  { title: "Runs", refusals: { ...TRAINING_REFUSALS, ...RESUME_REFUSALS } },
  { title: "Sweeps", refusals: SWEEP_REFUSALS },
  { title: "The command line", refusals: COMMAND_LINE_REFUSALS },
];

const INTRODUCTION = `# What is refused

What does not go together is refused before work is lost, by an error that says why and what to do. The errors and this page are made of the same words. A value that is out of its range, a name that is unknown and a file that is damaged are refused, too, and named in the error.
`;

/** Returns the page's text before formatting. */
export function refusedPage(): string {
  const cell = (text: string): string =>
    text.replaceAll("|", "\\|").replaceAll(/\[([^[\]]*`[^[\]]*)\]/g, "$1");
  const row = ({ what, where, reason, instead }: Refusal): string =>
    `| ${[what, where, reason, instead].map(cell).join(" | ")} |`;
  const table = ({ title, refusals }: Section): string =>
    [
      `## ${title}`,
      "",
      "| What | Where | Why | Instead |",
      "| --- | --- | --- | --- |",
      ...Object.values(refusals).map(row),
      "",
    ].join("\n");
  return [INTRODUCTION, ...SECTIONS.map(table)].join("\n");
}
