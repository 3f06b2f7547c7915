/** Unsupported combinations of command-line options that the library does not have. */
import type { Refusal } from "./refusal.js";

export const COMMAND_LINE_REFUSALS = {
  deviceOfList: {
    what: "--device",
    where: "of devices without --tune",
    reason: "all devices are listed, and one is tuned",
    instead: "give --tune, too",
  },
  promptWithMessages: {
    what: "--prompt",
    where: "with --messages",
    reason: "each is what generate goes on with",
    instead: "give one of them",
  },
  logprobsWithoutJson: {
    what: "--logprobs",
    where: "of generate without --json",
    reason: "log-probabilities have no place in the text",
    instead: "give --json, too",
  },
  dashboardAsJson: {
    what: "--dashboard",
    where: "of runs with --json",
    reason: "the page is served in the place of the list",
    instead: "give one of them",
  },
  blocksOutsideGguf: {
    what: "--dtype in blocks",
    where: "with --format other than gguf",
    reason: "a folder's tensors are stored as numbers",
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
    reason: "they say which files of a model are taken",
    instead: "give --model, or leave them out",
  },
} as const satisfies Record<string, Refusal>;
