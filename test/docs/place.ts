/** The environment of a page: the installed package, and small models under the names in the pages. */
import { chmodSync, cpSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { loadModel, saveModel, type LlamaForCausalLM } from "../../src/index.js";
import { temporary } from "../hashed.js";
import { filesOf, FIRST } from "../hub/models.js";
import { Hub } from "../hub/server.js";
import { installedProject } from "../packed.js";
import { tinyEncoder } from "../tiny-encoder.js";
import { tinyWhisper, tones, wave } from "../tiny-whisper.js";
import type { Place } from "./run-page.js";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** Models that pages name, each of that kind and as small as the embedded one. */
export interface StandIns {
  /** A folder of these models, and of two recordings. */
  models: string;
  hub: Hub;
  commands: string;
}

/** Creates them once for all pages; the caller closes the hub. */
export async function standIns(): Promise<StandIns> {
  const models = temporary();
  const plain = join(models, "SmolLM2-135M");
  cpSync(join(root, "models", "default"), plain, {
    recursive: true,
    filter: (path) => !/pretrain|\.txt$/.test(path),
  });
  for (const name of ["SmolLM2-135M-Instruct", "Qwen2.5-0.5B-Instruct"]) {
    cpSync(plain, join(models, name), { recursive: true });
    writeFileSync(
      join(models, name, "chat_template.jinja"),
      "{% for message in messages %}{{ message.role }}: {{ message.content }}</s>\n{% endfor %}" +
        "{% if add_generation_prompt %}assistant:{% endif %}",
    );
  }
  cpSync(await tinyEncoder(), join(models, "bert-base-uncased"), { recursive: true });
  const model = (await loadModel(plain, { device: "cpu" })) as LlamaForCausalLM;
  await saveModel(model, join(models, "SmolLM2-135M-Instruct.Q4_1.gguf"), { dtype: "q4_0" });
  model.dispose();
  for (const [i, { audio }] of tones(2).entries()) writeFileSync(join(models, `${"ab"[i]}.wav`), wave(audio));

  const hub = await new Hub({
    "HuggingFaceTB/SmolLM2-135M": [{ commit: FIRST, files: filesOf(plain) }],
    "openai/whisper-tiny": [{ commit: FIRST, files: filesOf(await tinyWhisper()) }],
  }).listen();
  return { models, hub, commands: commandsOf(installedProject()) };
}

/** Creates `npx`, without its second of lookup, and the package's command. */
function commandsOf(project: string): string {
  const folder = temporary();
  const main = join(project, "node_modules", "lowrank", "dist", "cli", "main.js");
  for (const [name, line] of Object.entries({
    npx: 'exec "$@"',
    lowrank: `exec "${process.execPath}" "${main}" "$@"`,
  })) {
    writeFileSync(join(folder, name), `#!/bin/sh\n${line}\n`);
    chmodSync(join(folder, name), 0o755);
  }
  return folder;
}

/** Writes rows, held-out rows, and conversations, under the names in the pages. */
function writeData(folder: string): void {
  const lines = (rows: object[]): string => rows.map((row) => `${JSON.stringify(row)}\n`).join("");
  const rows = Array.from({ length: 24 }, (_, i) => ({
    prompt: `What is ${i}?`,
    completion: ` It is ${i}.`,
  }));
  const chats = rows.slice(0, 4).map(({ prompt, completion }) => ({
    messages: [
      { role: "user", content: prompt },
      { role: "assistant", content: completion.trim() },
    ],
  }));
  writeFileSync(join(folder, "rows.jsonl"), lines(rows));
  writeFileSync(join(folder, "held-out.jsonl"), lines(rows.slice(0, 2)));
  writeFileSync(join(folder, "chats.jsonl"), lines(chats));
}

/** Returns a folder for one page. */
export function placeOf({ models, hub, commands }: StandIns): Place {
  const folder = join(temporary(), "page");
  mkdirSync(folder);
  writeFileSync(join(folder, "package.json"), '{ "private": true, "type": "module" }');
  symlinkSync(join(installedProject(), "node_modules"), join(folder, "node_modules"), "junction");
  for (const name of readdirSync(models)) cpSync(join(models, name), join(folder, name), { recursive: true });
  writeData(folder);
  const state = temporary();
  return {
    folder,
    commands: [commands],
    env: { PAGE_STATE: state, HF_ENDPOINT: hub.url, HF_HOME: join(state, "hub"), HF_TOKEN: "" },
  };
}
