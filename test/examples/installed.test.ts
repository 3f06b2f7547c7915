/** The examples next to an installed package, without access to the repository. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";
import { startServer } from "./server.js";
import { installedProject, nodeIn, runIn } from "../packed.js";
import { tinyEncoder } from "../tiny-encoder.js";

const examples = fileURLToPath(new URL("../../examples", import.meta.url));
const sources = readdirSync(examples, { recursive: true, encoding: "utf8" }).filter((name) =>
  /\.(ts|js|cjs)$/.test(name),
);

test("examples import only the package, Node and each other", (t) => {
  t.true(sources.length > 6);
  for (const name of sources) {
    const text = readFileSync(join(examples, name), "utf8");
    const imported = [...text.matchAll(/(?:from|import\(|require\() ?"([^"]+)"/g)].map(
      ([, specifier]) => specifier,
    );
    for (const specifier of imported)
      t.regex(
        specifier as string,
        /^(lowrank|lowrank\/electron|lowrank-mpi|electron|node:[a-z_/]+|\.\/[a-z-]+\.js)$/,
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

test("mails are prepared with the tarball, and classified with its command line", async (t) => {
  const folder = installedProject();
  const spam = join(folder, "spam");
  cpSync(join(examples, "spam"), spam, { recursive: true });
  // The files that the example downloads: a model with its tokenizer, and mails by group.
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

/** Copies an example into the project; returns its folder's name. */
function placed(name: string): string {
  cpSync(join(examples, name), join(installedProject(), name), { recursive: true });
  return name;
}

/** Runs an example's main.js, like its `npm start`; returns its output. */
const printed = (name: string): string => nodeIn(installedProject(), join(placed(name), "main.js"));

test("each example has the files for npm start, and a page that describes it", (t) => {
  const folders = readdirSync(examples).filter((name) => name !== "e2e-nlg" && name !== "spam");
  t.true(folders.length >= 7);
  for (const name of folders) {
    const manifest = JSON.parse(readFileSync(join(examples, name, "package.json"), "utf8")) as {
      private: boolean;
      scripts: { start: string };
      dependencies: object;
    };
    t.true(manifest.private && manifest.scripts.start !== "", name);
    const packages = name === "cluster" ? ["lowrank", "lowrank-mpi"] : ["lowrank"];
    t.deepEqual(Object.keys(manifest.dependencies), packages, name);
    t.regex(readFileSync(join(examples, name, "README.md"), "utf8"), /^# \w[^]*npm start/, name);
  }
});

test("a chat model answers differently after training", (t) => {
  const said = printed("chat");
  t.regex(said, /^before: /);
  t.regex(said, /^step 40 of 40: loss 0\.\d{3}\nafter: Marta keeps the lighthouse\.$/m);
  t.notRegex(said, /^before: Marta/);
});

test("a user-defined model is trained, adapted, merged", (t) => {
  const shares = [...printed("own-model").matchAll(/(\d+\.\d)%/g)].map(([, share]) => Number(share));
  const [learnt, turned, adapted, without, merged] = shares as [number, number, number, number, number];
  t.is(shares.length, 5);
  t.true(learnt > 98 && turned < 90 && adapted > 98, shares.join());
  t.is(without, learnt);
  t.true(Math.abs(merged - adapted) < 0.5, shares.join());
});

test("a U-Net is trained, and adapted to another kind of discs", (t) => {
  const shares = [...printed("segmentation").matchAll(/(\d+\.\d)%/g)].map(([, share]) => Number(share));
  const [bright, dark, adapted] = shares as [number, number, number];
  t.is(shares.length, 3);
  t.true(bright > 80 && dark < 50 && adapted > dark + 20, shares.join());
});

test("a language model learns to prefer the chosen answers", (t) => {
  const losses = [...printed("dpo").matchAll(/loss (\d+\.\d+)$/gm)].map(([, loss]) => Number(loss));
  t.is(losses.length, 10);
  // An adapter starts equal to its reference, where the loss is −log ½.
  t.true(Math.abs(losses[0]! - Math.LN2) < 1e-6, losses.join());
  t.true(losses.at(-1)! < 0.4, losses.join());
});

test("convolutions are adapted to images of another kind", (t) => {
  const said = printed("image-classifier");
  t.regex(said, /^2084 of 16264 weights, beside first, second, third/m);
  const shares = [...said.matchAll(/(\d+\.\d)%/g)].map(([, share]) => Number(share));
  const [light, dark, adapted, without] = shares as [number, number, number, number];
  t.is(shares.length, 4);
  t.true(light > 95 && dark < 50 && adapted > 95, shares.join());
  t.is(without, light);
});

test("each row of a batch is answered by its user's adapter", (t) => {
  const said = printed("adapters-per-user");
  t.regex(said, /^3 adapters take \d\.\d MiB beside one base$/m);
  for (const [user, dog] of Object.entries({ ada: "Captain", ben: "Bruno", cleo: "Snow" }))
    t.regex(said, new RegExp(`^${user}: The dog is called ${dog}\\.$`, "m"));
  t.notRegex(said, /^the base: The dog is called/m);
});

test("a server trains for users in turn, answers them in one batch, and restores them after a restart", async (t) => {
  t.timeout(120_000);
  placed("server");
  const server = await startServer(installedProject());
  t.teardown(() => server.kill());
  const rows = (dog: string): string =>
    JSON.stringify({ prompt: "What is the dog called?", completion: ` The dog is called ${dog}.` });
  t.deepEqual(await server.post("/users/ada/rows", rows("Captain")), { state: "waiting", ahead: 0 });
  t.like(await server.post("/users/ben/rows", rows("Bruno")), { state: "waiting" });
  t.like(await server.post("/users/ben/rows", rows("Bruno")), {
    error: "a run of this user waits or trains",
  });
  await server.post("/users/broken/rows", "no row");
  for (const user of ["ada", "ben"]) t.true((await server.ends(user)).loss! < 0.1);
  t.like(await server.ends("broken"), { state: "failed", code: "ERR_DATA_ROW" });

  const ask = (user: string): Promise<Answer> =>
    server.post(`/users/${user}/ask`, "What is the dog called?") as Promise<Answer>;
  const answers = await Promise.all(["nobody", "ada", "ben", "ada", "ben"].map(ask));
  t.true(answers.some(({ rows: together }) => together > 1));
  t.deepEqual(
    answers.slice(1).map(({ text }) => text),
    ["Captain", "Bruno", "Captain", "Bruno"].map((dog) => ` The dog is called ${dog}.`),
  );
  t.is(answers[0]?.adapter, null);
  t.like(await server.post("/users/ada/ask", ""), { error: "a prompt has 1 to 224 tokens; this one has 0" });
  t.like(await server.post("/users/../etc/rows", rows("x")), { error: "no such thing" });
  t.deepEqual(await server.stop(), { status: 0, errors: "" });

  const again = await startServer(installedProject());
  t.teardown(() => again.kill());
  t.like(await again.post("/users/ben/ask", "What is the dog called?"), {
    text: " The dog is called Bruno.",
  });
  t.deepEqual(await again.stop(), { status: 0, errors: "" });
});

interface Answer {
  text: string;
  adapter: string | null;
  rows: number;
}
