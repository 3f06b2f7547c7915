/** Options for models at the hub, and the display of downloads. */
import type { Command } from "commander";
import pc from "picocolors";

import type { DownloadProgress } from "../../hub/settings.js";
import { makeFlagByName } from "./flags.js";
import { CLEAR, type Output } from "../terminal/output.js";
import { formatDataLine, describeDownload } from "../terminal/progress.js";

/** The parsed options. */
export interface HubFlags {
  revision?: string | undefined;
  offline?: boolean | undefined;
}

/** Describes the values of `--model`. */
export const MODEL = "the model: a folder, a GGUF file, or owner/name[@revision] at the hub";

/** Declares the options that accompany `--model`. */
export function declareHubOptions(command: Command): Command {
  return command.addOption(makeFlagByName("revision")).addOption(makeFlagByName("offline"));
}

/** Shows a download on standard error: a live line on a terminal, otherwise one line. */
export class DownloadLine {
  #live = false;
  #hasShown = false;

  constructor(private readonly output: Output = process.stderr) {}

  show({ model, file, bytesRead, bytes: size }: DownloadProgress): void {
    const { output } = this;
    if (output.isTTY === true) {
      const event = { type: "progress", stage: "download", file, bytesRead, bytes: size, tokens: 0 } as const;
      output.write(
        `${CLEAR}${formatDataLine(event, output.columns ?? 80, pc.createColors(pc.isColorSupported))}`,
      );
      this.#live = true;
    } else if (!this.#hasShown) output.write(`lowrank: ${describeDownload(model, size)}\n`);
    this.#hasShown = true;
  }

  /** Clears the live line. */
  end(): void {
    if (this.#live) this.output.write(CLEAR);
    this.#live = false;
  }
}
