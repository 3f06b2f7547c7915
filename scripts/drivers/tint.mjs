// Compiles WGSL with Tint, Chromium's compiler, from the npm package of Dawn: `node tint.mjs WEBGPU FOLDER`. WEBGPU is the
// folder of the npm package `webgpu`. Prints one line of JSON per file, `{ file, wrong }`, where `wrong` is Tint's error or
// null.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { argv } from "node:process";
import { pathToFileURL } from "node:url";

const [webgpu, folder] = argv.slice(2);
const { create, globals } = await import(pathToFileURL(join(webgpu, "index.js")).href);
Object.assign(globalThis, globals);

/** Features that modules use and that the null backend's device supports only on request. */
const FEATURES = ["shader-f16", "subgroups", "immediate-address-space"];

const gpu = create(["backend=null", "enable-dawn-features=allow_unsafe_apis"]);
const adapter = await gpu.requestAdapter();
const device = await adapter.requestDevice({
  requiredFeatures: FEATURES.filter((name) => adapter.features.has(name)),
});

/** Adds the `enable` line for subgroups that the standard requires but naga rejects. */
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
