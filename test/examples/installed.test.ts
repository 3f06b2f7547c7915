/** The examples beside an installed package, with nothing of the repository in reach. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";
import { installedProject, runIn } from "../packed.js";
import { tinyEncoder } from "../tiny-encoder.js";

const examples = fileURLToPath(new URL("../../examples", import.meta.url));
const sources = readdirSync(examples, { recursive: true, encoding: "utf8" }).filter((name) =>
  /\.(ts|js|cjs)$/.test(name),
);

test("examples import the package, Node and each other, and nothing else", (t) => {
  t.true(sources.length > 6);
  for (const name of sources) {
    const text = readFileSync(join(examples, name), "utf8");
    const imported = [...text.matchAll(/(?:from|import\(|require\() ?"([^"]+)"/g)].map(
      ([, specifier]) => specifier,
    );
    for (const specifier of imported)
      t.regex(
        specifier as string,
        /^(lowrank|lowrank\/electron|electron|node:[a-z_/]+|\.\/[a-z-]+\.js)$/,
        name,
      );
  }
});

test("LoRA on GPT-2 for the E2E challenge runs from the tarball", (t) => {
  const folder = installedProject();
  cpSync(join(examples, "e2e-nlg"), join(folder, "e2e-nlg"), { recursive: true });
  const short = "--size tiny --epochs 1 --warmup 1 --max-length 400 --device cpu --output e2e.safetensors";
  const said = runIn(folder, join("e2e-nlg", "main.ts"), short.split(" "));
  t.regex(said, /^2,048 weights train, on cpu\n/);
  t.regex(said, /step 2\/2 {2}loss \d+\.\d{4}\nadapter e2e.safetensors\n$/);
  t.true(existsSync(join(folder, "e2e.safetensors")));
});

test("mails are prepared from the tarball, and told apart by its command line", async (t) => {
  const folder = installedProject();
  const spam = join(folder, "spam");
  cpSync(join(examples, "spam"), spam, { recursive: true });
  // What the example fetches: a model with its tokenizer, and mails by group.
  cpSync(await tinyEncoder(), join(spam, "minilm"), { recursive: true });
  for (const [group, word] of Object.entries({ "easy-ham-1": "hello", "spam-2": "win" })) {
    mkdirSync(join(spam, "corpus", group), { recursive: true });
    for (let i = 0; i < 10; i++) {
      const mail = { text: `Subject: a\n\n${word} ${i}` };
      writeFileSync(join(spam, "corpus", group, `${i}.json`), JSON.stringify(mail));
    }
  }
  const said = runIn(folder, join("spam", "prepare.ts"));
  t.regex(
    said,
    /train\.jsonl: 16 rows, 8 of them spam\n.*test\.jsonl: 4 rows, 2 of them spam\n0 mails without/,
  );
  const command = join(folder, "node_modules", "lowrank", "dist", "cli", "main.js");
  const options = "--rank 2 --steps 2 --batch-size 4 --grad-accum 1 --max-length 16 --device cpu --json";
  const told = runIn(folder, command, [
    ..."finetune --model spam/minilm --data spam/data/train.jsonl --output spam/out".split(" "),
    ...options.split(" "),
  ]);
  t.is((JSON.parse(told.trim().split("\n").at(-1) as string) as { type: string }).type, "end");
  const judged = runIn(folder, command, [
    ..."evaluate --adapter spam/out --data spam/data/test.jsonl --device cpu --max-length 16 --json".split(
      " ",
    ),
  ]);
  t.is((JSON.parse(judged) as { rows: number }).rows, 4);
});
