/**
 * The right-hand column of docs/from-loralib.md runs with the packed package, compiles against its types, and is
 * correct.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import test from "ava";

import { installedProject } from "../packed.js";

const root = fileURLToPath(new URL("../../", import.meta.url));

function run(command: string, args: string[], cwd: string): string {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${stdout}\n${stderr}`);
  return stdout;
}

/** Creates a project with the packed package, and Node's types to compile the page's code. */
function installed(): string {
  const folder = installedProject();
  mkdirSync(join(folder, "node_modules", "@types"));
  symlinkSync(
    join(root, "node_modules", "@types", "node"),
    join(folder, "node_modules", "@types", "node"),
    "junction",
  );
  return folder;
}

/** The page's statements about the results, checked after its last line. */
const CHECKS = `
import { existsSync } from "node:fs";
const told = {
  loralib: Object.keys(await safetensors.load("ckpt_lora.safetensors")),
  bias: Object.keys(await safetensors.load("ckpt_bias.safetensors")).length,
  gpt2: Object.keys(await safetensors.load("model.safetensors")),
  trained: Object.values(lora.loraStateDict(lmNet)).reduce((n, one) => n + one.size, 0),
  losses,
  same: (await again.forward(dataloader[0] as Tensor).data()).join() === (await model.forward(dataloader[0] as Tensor).data()).join(),
  folder: existsSync("adapter/adapter_config.json"),
  left: lora.adapters(beam),
  beam: beam.h[0]?.attn.cAttn.constructor.name,
};
console.log(JSON.stringify(told));
void [layer, adapted, qProj, kProj, vProj, noGrad, randn];
`;

test("the page's code runs with the packed package, and compiles against its types", (t) => {
  t.timeout(600_000);
  const folder = installed();
  const page = readFileSync(join(root, "docs/from-loralib.md"), "utf8");
  const code = [...page.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, block]) => block).join("\n");
  t.deepEqual([...new Set([...code.matchAll(/from "([^"]+)"/g)].map(([, from]) => from))], ["lowrank"]);
  writeFileSync(join(folder, "page.ts"), code + CHECKS);
  const compiler = { module: "nodenext", target: "es2023", strict: true, noEmit: true, skipLibCheck: true };
  writeFileSync(
    join(folder, "tsconfig.json"),
    JSON.stringify({ compilerOptions: { ...compiler, types: ["node"] }, files: ["page.ts"] }),
  );
  run(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", "."], folder);
  const loader = pathToFileURL(join(root, "node_modules/tsx/dist/loader.mjs")).href;
  const told = JSON.parse(run(process.execPath, [`--import=${loader}`, "page.ts"], folder)) as {
    loralib: string[];
    bias: number;
    gpt2: string[];
    trained: number;
    losses: number[];
    same: boolean;
    folder: boolean;
    left: string[];
    beam: string;
  };
  const pairs = (paths: string[]): string[] => paths.flatMap((path) => [`${path}.lora_A`, `${path}.lora_B`]);
  t.deepEqual(told.loralib.toSorted(), pairs(["embed", "qkv", "conv"]).toSorted());
  // Includes the biases of qkv, of the convolution and of the norm.
  t.is(told.bias, 6 + 3);
  t.deepEqual(told.gpt2.toSorted(), pairs(["h.0.attn.cAttn", "h.1.attn.cAttn"]).toSorted());
  // A [r·2, C] and B [2·C, r] of two layers.
  t.is(told.trained, 2 * (4 * 2 * 16 + 2 * 16 * 4));
  t.true(told.losses.every(Number.isFinite) && (told.losses.at(-1) as number) < (told.losses[0] as number));
  t.true(told.same && told.folder);
  t.deepEqual(told.left, []);
  t.is(told.beam, "Linear");
});
