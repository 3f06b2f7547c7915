/** Electron's pages, and with them its V8, may lack SharedArrayBuffer. */
import { spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { temporary, tinyData, tinyModel } from "../hashed.js";
import { installedProject } from "../packed.js";
import { quick } from "../train/quick.js";

test("a run trains without SharedArrayBuffer", (t) => {
  const folder = installedProject();
  const output = join(temporary(), "out");
  const options = quick({ model: tinyModel(), data: tinyData() }, "cpu", { output });
  const program = `
    if (typeof SharedArrayBuffer !== "undefined") throw new Error("it is there");
    const { finetune } = await import("lowrank");
    const run = finetune(${JSON.stringify(options)});
    let steps = 0;
    for await (const event of run) if (event.type === "step") steps += 1;
    console.log(steps, (await run.result).steps);`;
  writeFileSync(join(folder, "no-shared-memory.mjs"), program);
  // Contexts are created without it, as in a page that is not isolated.
  const flags = ["--enable-sharedarraybuffer-per-context", "no-shared-memory.mjs"];
  const { status, stdout, stderr } = spawnSync(process.execPath, flags, {
    cwd: folder,
    encoding: "utf8",
    env: { ...process.env, NODE_OPTIONS: "" },
  });
  t.is(status, 0, stderr);
  t.is(stdout, "12 12\n");
  t.true(existsSync(join(output, "adapter_model.safetensors")));
});
