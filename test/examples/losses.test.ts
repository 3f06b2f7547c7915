/**
 * The programs of examples/ next to an installed package, started with the weights and the adapter of the same
 * programs in PyTorch, transformers and PEFT (test/parity/examples.py): the losses of the first ten steps agree to
 * 1e-5.
 */
import { cpSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";
import { safetensors, tensor } from "../../src/index.js";
import { goldenModel, hashed, temporary } from "../hashed.js";
import { installedProject, nodeIn } from "../packed.js";
import { goldens } from "../parity/goldens.js";

const examples = fileURLToPath(new URL("../../examples", import.meta.url));

interface Figures {
  weights: Record<string, number[]>;
  losses: number[];
}

/** Starts an example with a model and the golden's adapter; returns its output. */
function started(name: string, model: string): string {
  const project = installedProject();
  cpSync(join(examples, name), join(project, name), { recursive: true });
  return nodeIn(project, join(name, "main.js"), [model, join(goldens, "examples", name, "adapter")]);
}

const figuresOf = (name: string): Figures =>
  JSON.parse(readFileSync(join(goldens, "examples", name, "golden.json"), "utf8")) as Figures;

/** Returns the golden's model with a tokenizer. */
function modelFolder(name: string, tokenizer: string): string {
  const folder = goldenModel(join(goldens, "examples", name));
  cpSync(join(goldens, "encodings", tokenizer), folder, { recursive: true });
  return folder;
}

/** Returns the golden's weights in one file. */
async function weightsFile(name: string): Promise<string> {
  const file = join(temporary(), "weights.safetensors");
  const entries = Object.entries(figuresOf(name).weights);
  await safetensors.save(
    file,
    Object.fromEntries(entries.map(([key, shape]) => [key, tensor(hashed(key, shape), { shape })])),
  );
  return file;
}

const programs: Record<string, () => string | Promise<string>> = {
  contrastive: () => modelFolder("contrastive", "wordpiece"),
  "entity-tagging": () => modelFolder("entity-tagging", "wordpiece"),
  dpo: () => modelFolder("dpo", "roberta"),
  segmentation: () => weightsFile("segmentation"),
};

for (const [name, model] of Object.entries(programs)) {
  test.serial(`${name}: the first ten losses are PyTorch's`, async (t) => {
    const said = started(name, await model());
    const losses = [...said.matchAll(/^step \d+ {2}loss (\d+\.\d{7})$/gm)].map(([, loss]) => Number(loss));
    const expected = figuresOf(name).losses;
    t.is(expected.length, 10);
    t.true(losses.length >= 10, said);
    const off = Math.max(...expected.map((loss, step) => Math.abs((losses[step] as number) / loss - 1)));
    t.log(`losses are off by ${off.toExponential(1)}`);
    t.true(off < 1e-5, `${losses.join()} instead of ${expected.join()}`);
  });
}
