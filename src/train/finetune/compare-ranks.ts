/** Checks that all ranks of a run do the same. */
import { optionName } from "../../arguments/option-name.js";
import { LowrankError } from "../../errors.js";
import { readVersion } from "../../package/version.js";
import type { Identities } from "../output/run-file.js";
import { listOptions, type Settings } from "../settings.js";
import type { RunRanks } from "../ranks/run-ranks.js";

/** Options that a rank may have for itself. */
const OWN: ReadonlySet<string> = new Set(["threads", "priority", "profile"]);

/** Throws `ERR_OPTION` on all ranks unless they have the same version of lowrank and the same options. */
export async function compareOptions(ranks: RunRanks, settings: Settings): Promise<void> {
  const options = Object.entries(listOptions(settings)).filter(([name]) => !OWN.has(name));
  await compare(ranks, [
    ["the version of lowrank", readVersion()],
    ["the version of Node", process.version],
    ...options.map(([name, value]): [string, unknown] => [optionName(name), value]),
  ]);
}

/** Throws `ERR_OPTION` on all ranks unless they have read the same model and data. */
export async function compareInputs(ranks: RunRanks, identities: Identities): Promise<void> {
  await compare(ranks, [
    ["the content of the model", identities.base],
    ["the tokenizer", identities.tokenizer],
    ["the training data", identities.data],
    ["the held-out data", identities.evalData],
    ["the adapter to start from", identities.adapter],
  ]);
}

/** Throws `ERR_OPTION` for the first value that differs. */
async function compare(ranks: RunRanks, local: readonly (readonly [string, unknown])[]): Promise<void> {
  const texts = local.map(([name, value]) => [name, JSON.stringify(value) ?? "none"] as const);
  const all = await ranks.gatherAll(texts);
  await ranks.agree(() => {
    const first = all[0] as typeof texts;
    for (const [i, [name, value]] of first.entries()) {
      const rank = all.findIndex((other) => other[i]?.[0] !== name || other[i]?.[1] !== value);
      if (rank < 0) continue;
      const otherValue = all[rank]?.[i]?.[1] ?? "none";
      const what = `the ranks differ in ${name}: ${value} on rank 0, ${otherValue} on rank ${rank}`;
      const remedy = "start all ranks with the same version, options and files";
      throw new LowrankError("ERR_OPTION", `finetune: ${what}; ${remedy}`);
    }
  });
}
