/** Models from a hub on the command line: the options, and how far a download has come. */
import type { Command } from "commander";
import pc from "picocolors";

import type { DownloadProgress } from "../hub/settings.js";
import { CLEAR, type Output } from "./finetune/render.js";
import { dataLine, downloading } from "./finetune/progress.js";

/** As commander hands them over. */
export interface HubFlags {
  revision?: string | undefined;
  offline?: boolean | undefined;
}

/** What `--model` takes. */
export const MODEL = "the model: a folder, a GGUF file, or owner/name[@revision] at the hub";

/** Declares what goes with `--model` where that may be a hub's. */
export function hubOptions(command: Command): Command {
  return command
    .option("--revision <name>", "branch, tag or commit of a model at the hub; or owner/name@revision")
    .option("--offline", "take a hub's model out of the cache, and ask no server");
}

/** Shows a download on standard error: as a live line on a terminal, elsewhere by one line. */
export class DownloadLine {
  #live = false;
  #told = false;

  constructor(private readonly output: Output = process.stderr) {}

  show({ model, file, bytesRead, bytes: size }: DownloadProgress): void {
    const { output } = this;
    if (output.isTTY === true) {
      const event = { type: "progress", stage: "download", file, bytesRead, bytes: size, tokens: 0 } as const;
      output.write(`${CLEAR}${dataLine(event, output.columns ?? 80, pc.createColors(pc.isColorSupported))}`);
      this.#live = true;
    } else if (!this.#told) output.write(`lowrank: ${downloading(model, size)}\n`);
    this.#told = true;
  }

  /** Takes the live line off again. */
  end(): void {
    if (this.#live) this.output.write(CLEAR);
    this.#live = false;
  }
}
