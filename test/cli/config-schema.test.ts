/** The schema of config files and the page of options agree with the table of options and with the command. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import Ajv from "ajv";
import test from "ava";
import { Command } from "commander";
import { format } from "prettier";
import { parse, stringify } from "yaml";

import { optionsPage } from "../../scripts/options/page.js";
import { configSchema } from "../../scripts/options/schema.js";
import { applyConfigFile } from "../../src/cli/finetune/config-file.js";
import { declareFlags, FLAGS } from "../../src/cli/options/flags.js";
import { temporary } from "../hashed.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const schema = configSchema() as { properties: Record<string, { default?: unknown }> };
const accepts = new Ajv.default({ strictRequired: false }).compile(schema);

const folder = temporary();
let made = 0;

/** Whether the command accepts a file with these options. */
async function isTaken(options: object): Promise<boolean> {
  const file = join(folder, `${made++}.yaml`);
  writeFileSync(file, stringify(options));
  const command = declareFlags(new Command("finetune")).exitOverride();
  return applyConfigFile(command, file).then(
    () => true,
    () => false,
  );
}

test("the schema accepts the recipe of the embedded model, and the file of docs/options.md", (t) => {
  const recipe = readFileSync(join(root, "models/default/finetune.yaml"), "utf8");
  t.true(accepts(parse(recipe)), JSON.stringify(accepts.errors));
  const [, file] = /```yaml run\.yaml\n([^`]*)```/.exec(optionsPage()) ?? [];
  t.true(accepts(parse(file as string)), JSON.stringify(accepts.errors));
});

test("the schema refuses unknown names, values of a wrong kind or range, and alternatives together", (t) => {
  const wrong = [
    { rnk: 3 },
    { gradientAccumulation: 2 },
    { config: "other.yaml" },
    { rank: 0 },
    { rank: 1.5 },
    { "eval-split": 1 },
    { schedule: "consine" },
    { device: "gpux" },
    { "save-every": "10 minutes" },
    { memory: "2 gigs" },
    { init: "loftq" },
    { json: 3 },
    { steps: 3, epochs: 2 },
    { "eval-data": "e.txt", "eval-split": 0.1 },
  ];
  for (const options of wrong) t.false(accepts(options), JSON.stringify(options));
});

test("the schema has each flag, with its default", (t) => {
  const command = declareFlags(new Command("finetune"));
  const names = command.options.map(({ long }) => long?.slice(2)).filter((name) => name !== "config");
  t.deepEqual(Object.keys(schema.properties).sort(), names.map(String).sort());
  for (const { flag, entry } of FLAGS) {
    const name = flag.slice(2).split(" ")[0] as string;
    t.deepEqual(schema.properties[name]?.default, entry.default, name);
    if (entry.default !== undefined) t.true(accepts({ [name]: entry.default }), name);
  }
});

const VALUES: readonly unknown[] = [
  ...[true, false, 0, 1, 2, 3, -1, 0.5, 1.5, 1e-8, 65_536, 2 ** 53, 1e300, "", "a", "a,b", "a,,b", " ", "-"],
  ...["10m", "1.5h", "0s", "90 s", "never", "2GB", "0.4B", "512", "0", "auto", "cpu", "gpu:1", "gpu:x"],
  ...[
    "linear",
    "adamw",
    "bf16",
    "nf4",
    "csv",
    "txt",
    "all-linear",
    "pissa_niter_4",
    "gaussian",
    "background",
  ],
  ...[["a"], ["a", "b"], [], [""], ["a,b"], [1], {}, { a: 1 }],
];

test("the command accepts each value that the schema accepts", async (t) => {
  let accepted = 0;
  for (const name of Object.keys(schema.properties)) {
    for (const value of VALUES) {
      if (!accepts({ [name]: value })) continue;
      accepted++;
      t.true(await isTaken({ [name]: value }), `${name}: ${JSON.stringify(value)}`);
    }
  }
  t.true(accepted > 300, String(accepted));
});

test("the schema accepts each number and each choice that the command accepts", async (t) => {
  for (const { flag, entry } of FLAGS) {
    const name = flag.slice(2).split(" ")[0] as string;
    const values =
      entry.kind.name === "number" || entry.onCommandLine?.name === "number"
        ? VALUES.filter((value) => typeof value === "number")
        : (entry.kind.choices ?? []);
    for (const value of values)
      t.is(accepts({ [name]: value }), await isTaken({ [name]: value }), `${name}: ${String(value)}`);
  }
});

test("docs/options.md is generated from the table: npm run options writes it", async (t) => {
  const page = join(root, "docs/options.md");
  t.is(readFileSync(page, "utf8"), await format(optionsPage(), { filepath: page }));
});

test("the build writes the schema", (t) => {
  t.deepEqual(JSON.parse(readFileSync(join(root, "dist/finetune.schema.json"), "utf8")), schema);
});
