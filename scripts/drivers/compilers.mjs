// Compiles or checks every listed kernel variant with compilers other than the devices' own. Each function returns
// `{ by, forms, wrong }`: the compiler, the number of valid variants, and one sentence for each invalid one.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { execPath } from "node:process";
import { fileURLToPath } from "node:url";
import { must } from "../platforms/command.mjs";
import { libraries, newer, unpacked } from "./archive.mjs";
import { checkout } from "./engine.mjs";

const WEBGPU = "webgpu@0.6.2";
const LINES = 3;

/** Writes all variants as WGSL, SPIR-V, MSL and HLSL; returns the folder and the variants' names. */
export function written(folder) {
  const made = join(folder, "forms");
  rmSync(made, { recursive: true, force: true });
  const example = ["--example", "forms", "--features", "translations"];
  must("cargo", ["run", "--release", "-q", "-p", "lowrank-engine", ...example, "--", "write", made], {
    cwd: checkout,
  });
  const forms = JSON.parse(readFileSync(join(made, "forms.json"), "utf8"));
  return { made, files: forms.map(({ file }) => file) };
}

/** Compiles with Tint, Chromium's compiler. */
export function tint(folder, { made, files }) {
  const [name, version] = WEBGPU.split("@");
  const at = join(folder, `webgpu-${version}`);
  const webgpu = join(at, "node_modules", name);
  if (!existsSync(webgpu)) {
    mkdirSync(at, { recursive: true });
    writeFileSync(join(at, "package.json"), JSON.stringify({ private: true }));
    must("npm", ["install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", WEBGPU], { cwd: at });
  }
  const program = fileURLToPath(new URL("tint.mjs", import.meta.url));
  const told = must(execPath, [program, webgpu, made]).trim().split("\n");
  const verdicts = new Map(told.map((line) => JSON.parse(line)).map(({ file, wrong }) => [file, wrong]));
  return verdict(`Tint, npm's ${WEBGPU.replace("@", " ")}`, files, (file) => {
    const wrong = verdicts.get(`${file}.wgsl`);
    return wrong === undefined ? "was not compiled" : wrong;
  });
}

/** Checks naga's SPIR-V for Vulkan with spirv-val. */
export function spirv(folder, { made, files }) {
  const root = unpacked(folder, "trixie", ["spirv-tools"]);
  const command = [...newer(folder), join(root, "usr/bin/spirv-val")];
  const by = run([...command, "--version"]).output.split("\n")[0];
  const wrong = (file) => {
    const { status, output } = run([...command, "--target-env", "vulkan1.1", join(made, `${file}.spv`)]);
    return status === 0 ? null : output;
  };
  return verdict(by, files, wrong);
}

/** Counts the MSL for Metal, which no compiler here can read. */
export function msl(_folder, { made, files }) {
  return verdict("naga's text alone", files, (file) => {
    const path = join(made, `${file}.metal`);
    const text = existsSync(path) ? readFileSync(path, "utf8") : "";
    return /\bkernel void main_\(/.test(text) ? null : "has no kernel in Metal's language";
  });
}

/** Checks the syntax of the HLSL for DX12 with glslang. */
export function hlsl(folder, { made, files }) {
  const root = unpacked(folder, "trixie", ["glslang-tools"]);
  const command = [...newer(folder, [libraries(root)]), join(root, "usr/bin/glslang")];
  const by = run([...command, "--version"])
    .output.split("\n")[0]
    .replace("Glslang Version: 11:", "glslang ");
  // The language, an entry point, a stage, Vulkan's rules, and automatic bindings.
  const how = [
    "-D",
    "-e",
    "main",
    "--stdin",
    "-S",
    "comp",
    "-V",
    "--auto-map-bindings",
    "--auto-map-locations",
  ];
  const wrong = (file) => {
    const input = forGlslang(readFileSync(join(made, `${file}.66.hlsl`), "utf8"));
    const { status, output } = run([...command, ...how, "-o", "/dev/null"], { input });
    return status === 0 ? null : output;
  };
  return verdict(by, files, wrong);
}

/** Replaces two forms of array initialisation that DX12's compilers accept and glslang does not. */
export function forGlslang(text) {
  const zeros = (_, type, count) => `= { ${Array(Number(count)).fill(`(${type})0`).join(", ")} };`;
  return text
    .replaceAll(/= \((\w+)\[(\d+)\]\)0;/g, zeros)
    .replaceAll(/^(static .*) = Constructarray\w+\((.*)\);$/gm, "$1 = { $2 };");
}

function verdict(by, files, check) {
  const wrong = [];
  for (const file of files) {
    const told = check(file);
    if (told !== null) wrong.push(`${file}: ${told.trim().split("\n").slice(0, LINES).join(" / ")}`);
  }
  return { by, forms: files.length - wrong.length, of: files.length, wrong };
}

function run([command, ...args], options) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: "utf8", ...options });
  return { status: status ?? 1, output: `${stdout ?? ""}${stderr ?? ""}${error?.message ?? ""}` };
}
