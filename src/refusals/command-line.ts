/** Unsupported combinations of command-line options that the library does not have. */
import type { Refusal } from "./refusal.js";

export const COMMAND_LINE_REFUSALS = {
  deviceOfList: {
    what: "--device",
    where: "of devices without --tune",
    reason: "the list includes all devices; only --tune uses one",
    instead: "give --tune, too",
  },
  promptWithMessages: {
    what: "--prompt",
    where: "with --messages",
    reason: "generate continues only one of them",
    instead: "give one of them",
  },
  logprobsWithoutJson: {
    what: "--logprobs",
    where: "of generate without --json",
    reason: "plain text output cannot include log-probabilities",
    instead: "give --json, too",
  },
  dashboardAsJson: {
    what: "--dashboard",
    where: "of runs with --json",
    reason: "the page replaces the list",
    instead: "give one of them",
  },
  blocksOutsideGguf: {
    what: "a block type as --dtype",
    where: "with --format other than gguf",
    reason: "safetensors files cannot store blocks",
    instead: "give --format gguf, or another --dtype",
  },
  shardsOfGguf: {
    what: "--max-shard-size",
    where: "with --format gguf",
    reason: "a GGUF file is one file",
    instead: "leave it out",
  },
  revisionWithoutModel: {
    what: "--revision and --offline",
    where: "of export without --model",
    reason: "they select the files of a hub model",
    instead: "give --model, or leave them out",
  },
} as const satisfies Record<string, Refusal>;
