/** Unreadable and unsuitable files, and control characters: one line that names the file. */
import { chmodSync, cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { temporary, tinyData, tinyModel } from "../hashed.js";
import { ONE_LINE, runHere, type Ended } from "./lowrank.js";

const data = tinyData();

function model(change: (folder: string) => void): string {
  const folder = join(temporary(), "model");
  cpSync(tinyModel(), folder, { recursive: true });
  change(folder);
  return folder;
}

async function finetune(folder: string, rows = data): Promise<Ended> {
  const argv = ["finetune", "--model", folder, "--data", rows, "--device", "cpu", "--steps", "1"];
  return runHere(...argv, "--output", join(temporary(), "out"));
}

const FILES = ["config.json", "tokenizer.json", "model.safetensors", "generation_config.json"];

for (const name of FILES) {
  test.serial(`${name} that is a folder`, async (t) => {
    const folder = model((folder) => {
      rmSync(join(folder, name), { force: true });
      mkdirSync(join(folder, name));
    });
    const { status, stderr } = await finetune(folder);
    t.is(status, 1);
    t.regex(stderr, ONE_LINE);
    t.true(stderr.startsWith(`lowrank: ${join(folder, name)}: `), stderr);
    t.regex(
      stderr,
      /a file was expected, this is a folder|is a folder, and a file was expected|cannot be read \(EISDIR\)/,
    );
  });
}

if (process.platform !== "win32") {
  test.serial("weights that are a link to nothing", async (t) => {
    const folder = model((folder) => {
      rmSync(join(folder, "model.safetensors"));
      symlinkSync(join(folder, "absent"), join(folder, "model.safetensors"));
    });
    const { status, stderr } = await finetune(folder);
    t.is(status, 1);
    t.is(stderr, `lowrank: ${join(folder, "model.safetensors")}: no such file\n`);
  });
}

// Root can read every file.
if (process.getuid !== undefined && process.getuid() !== 0) {
  for (const name of ["config.json", "tokenizer.json", "model.safetensors"]) {
    test.serial(`${name} without permission`, async (t) => {
      const folder = model((folder) => chmodSync(join(folder, name), 0));
      const { status, stderr } = await finetune(folder);
      t.is(status, 1);
      t.is(stderr, `lowrank: ${join(folder, name)}: cannot be read (EACCES)\n`);
    });
  }
}

test.serial("a file's content is quoted without cursor control characters", async (t) => {
  const rows = join(temporary(), "rows.jsonl");
  writeFileSync(rows, '{"text":"a"}\r{"text":"\u001b[2Jb"}\r');
  const { status, stderr } = await finetune(tinyModel(), rows);
  t.is(status, 1);
  t.is(stderr, `lowrank: ${rows}:1: not JSON: {"text":"a"} {"text":"\\x1b[2Jb"}\n`);
});

test.serial(
  "weights that are not finite are distinguished from a learning rate that is too high",
  async (t) => {
    const folder = model((folder) => {
      const file = join(folder, "model.safetensors");
      const bytes = readFileSync(file);
      bytes.fill(0xff, 8 + Number(bytes.readBigUInt64LE(0)));
      writeFileSync(file, bytes);
    });
    const { status, stderr } = await finetune(folder);
    t.is(status, 1);
    t.regex(stderr, ONE_LINE);
    t.regex(stderr, /step 1: the loss is NaN; .*; nothing was trained before: the model's weights/);
  },
);
