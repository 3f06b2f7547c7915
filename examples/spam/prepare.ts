/**
 * Writes `data/train.jsonl` and `data/test.jsonl`: rows of text and label, where the text is the first 128 tokens of a
 * mail's body. Downloads the corpus and the model if they are missing.
 *
 *   npx tsx examples/spam/prepare.ts [--seed N]
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { Tokenizer } from "lowrank";
import { fetchCorpus, fetchModel } from "./fetch.js";
import { bodyOf } from "./mail.js";
import { split, type Row } from "./split.js";

const TOKENS = 128;
const HELD_OUT = 0.2;

const { values } = parseArgs({ options: { seed: { type: "string", default: "0" } } });
const here = fileURLToPath(new URL(".", import.meta.url));
const tokenizer = new Tokenizer(join(fetchModel(join(here, "minilm")), "tokenizer.json"));

/** Truncates a text to whole words that fit into the token limit together with the two special tokens. */
function cut(text: string): string {
  const words = text.split(" ", TOKENS);
  let [fits, most] = [0, words.length];
  while (fits < most) {
    const middle = Math.ceil((fits + most) / 2);
    if (tokenizer.encode(words.slice(0, middle).join(" ")).length <= TOKENS) fits = middle;
    else most = middle - 1;
  }
  // If the first word alone is too long, truncates by characters, since a token has at least one.
  return fits > 0 ? words.slice(0, fits).join(" ") : text.slice(0, TOKENS - 2);
}

function* rows(corpus: string): Generator<Row> {
  for (const group of readdirSync(corpus, { withFileTypes: true })) {
    if (!group.isDirectory()) continue;
    const label = group.name.startsWith("spam") ? "spam" : "ham";
    for (const name of readdirSync(join(corpus, group.name)).sort()) {
      if (!name.endsWith(".json")) continue;
      const mail = JSON.parse(readFileSync(join(corpus, group.name, name), "utf8")) as { text: string };
      yield { text: cut(bodyOf(mail.text)), label };
    }
  }
}

const all = [...rows(fetchCorpus(join(here, "corpus")))];
const whole = all.filter(({ text }) => text !== "");
const sides = split(whole, HELD_OUT, Number(values.seed));
mkdirSync(join(here, "data"), { recursive: true });
for (const [name, side] of Object.entries(sides)) {
  const file = join(here, "data", `${name}.jsonl`);
  writeFileSync(file, side.map((row) => `${JSON.stringify(row)}\n`).join(""));
  const spam = side.filter(({ label }) => label === "spam").length;
  console.log(`${file}: ${side.length} rows, ${spam} of them spam`);
}
console.log(`${all.length - whole.length} mails without a word of text were left out`);
