// Compiles WGSL by Tint, the compiler of Chromium, which npm has as a part of Dawn: `node tint.mjs WEBGPU FOLDER`. WEBGPU
// is the folder of npm's package `webgpu`; prints a line of JSON for each file, `{ file, wrong }`, `wrong` being what Tint
// has against it, or null.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { argv } from "node:process";
import { pathToFileURL } from "node:url";

const [webgpu, folder] = argv.slice(2);
const { create, globals } = await import(pathToFileURL(join(webgpu, "index.js")).href);
Object.assign(globalThis, globals);

/** What a module may ask for, and the device's backend of nothing has. */
const FEATURES = ["shader-f16", "subgroups", "immediate-address-space"];

const gpu = create(["backend=null", "enable-dawn-features=allow_unsafe_apis"]);
const adapter = await gpu.requestAdapter();
const device = await adapter.requestDevice({
  requiredFeatures: FEATURES.filter((name) => adapter.features.has(name)),
});

/** A form's text as the standard asks for it: naga has functions of subgroups without the line, and refuses it. */
function standard(text) {
  return /\bsubgroup[A-Z]/.test(text) ? `enable subgroups;\n${text}` : text;
}

for (const file of readdirSync(folder).filter((name) => name.endsWith(".wgsl"))) {
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ code: standard(readFileSync(join(folder, file), "utf8")) });
  const { messages } = await module.getCompilationInfo();
  const error = await device.popErrorScope();
  const told = messages.filter(({ type }) => type === "error");
  const wrong =
    told.map(({ lineNum, message }) => `line ${lineNum}: ${message}`).join("; ") || error?.message;
  console.log(JSON.stringify({ file, wrong: wrong ?? null }));
}
device.destroy();
