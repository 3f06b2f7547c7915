/** Generates docs/options.md from the table of options. */
import { FOREIGN_NAMES, type ForeignName } from "../../src/arguments/foreign-names.js";
import { type AnyOption, isGroup, type Table } from "../../src/train/options/entry.js";
import { OPTIONS } from "../../src/train/options/table.js";

const INTRODUCTION = `# Options of finetune

The options of \`finetune\` in a program, and of \`lowrank finetune\` and \`lowrank estimate\` on the command line. The reference of \`FinetuneOptions\` describes each in more detail.

## A file of options

\`--config\` reads options from a YAML file, by the names of their flags without \`--\`. The command line overrides the file.

\`\`\`yaml run.yaml
# yaml-language-server: $schema=node_modules/lowrank/dist/finetune.schema.json
data: rows.jsonl
output: short-run
rank: 8
targets: [q_proj, v_proj]
steps: 3
\`\`\`

\`\`\`sh
npx lowrank finetune --model SmolLM2-135M --config run.yaml
\`\`\`

The package has a JSON Schema for such files, \`dist/finetune.schema.json\`. With the first line above, editors with a YAML language server complete the names and values, describe them, and mark mistakes.

## Resuming and memory

The column "Resuming" says what another value does when a run is resumed ([resuming](resuming.md)): an option that is _fixed_ throws an error, an option that is _reported_ takes effect with a warning, any other takes effect.
`;

const RESUMING = { fixed: "fixed", reported: "reported", free: "" } as const;

function flat(table: Table, group = ""): [string, AnyOption][] {
  return Object.entries(table).flatMap(([name, entry]) =>
    isGroup(entry) ? flat(entry.fields, `${name}.`) : [[group + name, entry] as [string, AnyOption]],
  );
}

function row([name, { flag, kind, whenResuming, help, ...entry }]: [string, AnyOption]): string {
  const cells = [
    `\`${name}\``,
    flag === undefined ? "" : `\`${flag.split(" ")[0]}\``,
    kind.type,
    entry.default === undefined ? "" : `\`${String(entry.default)}\``,
    RESUMING[whenResuming],
    help,
  ];
  return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
}

/** Returns the row of an option with its names in other libraries. */
function foreignRow(
  { names, libraries, option, unit }: ForeignName,
  flags: ReadonlyMap<string, string>,
): string {
  const flag = flags.get(option);
  const cells = [
    names.map((name) => `\`${name}\``).join(", "),
    libraries.join(", "),
    `\`${option}\``,
    flag === undefined ? "" : `\`${flag}\``,
    unit,
  ];
  return `| ${cells.join(" | ")} |`;
}

/** Returns the page's text before formatting. */
export function optionsPage(): string {
  const options = flat(OPTIONS);
  const flags = new Map(
    options.flatMap(([name, { flag }]) =>
      flag === undefined ? [] : [[name, flag.split(" ")[0] as string] as const],
    ),
  );
  const chosen = (how: AnyOption["byMemory"]): string =>
    options.flatMap(([name, { byMemory }]) => (byMemory === how ? [`\`${name}\``] : [])).join(", ");
  return [
    INTRODUCTION,
    `\`memory\` may choose ${chosen("if absent")} where they are absent, and ${chosen("same rows")} with the same product ([the memory plan](memory.md)).`,
    "",
    "## All options",
    "",
    "A default in the last column depends on other options.",
    "",
    "| Option | Flag | Value | Default | Resuming | Meaning |",
    "| --- | --- | --- | --- | --- | --- |",
    ...options.map(row),
    "",
    "## Names in other libraries",
    "",
    "An option under the name that another library gives it is refused with the name that it has here. Case, hyphens and underscores do not matter. Options without a flag in this table belong to the layers of an adapter or to `generate`.",
    "",
    "| Name there | Libraries | Option | Flag | Value |",
    "| --- | --- | --- | --- | --- |",
    ...FOREIGN_NAMES.map((entry) => foreignRow(entry, flags)),
    "",
  ].join("\n");
}
