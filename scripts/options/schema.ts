/** The JSON Schema of config files, from the table of options. */
import { toJsonSchema } from "@valibot/to-json-schema";

import { FLAGS, type Flag } from "../../src/cli/options/flags.js";

/** The key of an option in a config file. */
function keyOf({ flag }: Flag): string {
  return flag.slice(2).split(" ")[0] as string;
}

function property({ entry }: Flag): object {
  const { inFile, schema } = entry.onCommandLine ?? entry.kind;
  // JSON has only finite numbers.
  const { $schema: _, ...values } = toJsonSchema((inFile ?? schema) as never, { ignoreActions: ["finite"] });
  return {
    description: entry.help,
    ...values,
    ...(entry.default !== undefined && { default: entry.default }),
  };
}

/** Returns the pairs of keys that exclude each other. */
function alternatives(): [string, string][] {
  return FLAGS.flatMap((flag) => {
    const other = FLAGS.find(({ path }) => path.join(".") === flag.entry.excludes);
    return other !== undefined && keyOf(flag) < keyOf(other) ? [[keyOf(flag), keyOf(other)]] : [];
  });
}

export function configSchema(): object {
  return {
    $schema: "http://json-schema.org/draft-07/schema#",
    title: "Options of lowrank finetune",
    description: "A file for --config of lowrank finetune and lowrank estimate",
    type: "object",
    properties: {
      ...Object.fromEntries(FLAGS.map((flag) => [keyOf(flag), property(flag)])),
      json: { description: "print one JSON object per event", type: "boolean" },
    },
    additionalProperties: false,
    allOf: alternatives().map((required) => ({ not: { required } })),
  };
}
