/** Kernel variants that are chosen on the device: the effects that a user notices. The engine has its own tests. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";

import { findCacheFolder } from "../src/package/cache-folder.js";
import { session, type TuneReport } from "../src/native/binding.js";
import { lowrank, ONE_LINE } from "./cli/lowrank.js";
import { testDevices } from "./devices.js";
import { temporary } from "./hashed.js";

const url = (path: string): string => JSON.stringify(fileURLToPath(new URL(path, import.meta.url)));

/** Prints the bits of the losses of six steps on the GPU, or the code and the message of an error. */
const PROGRAM = `import { scope } from ${url("../src/index.ts")};
import { adamOf, recordStep, smallLlama, VOCABULARY } from ${url("./small-llama.ts")};
import { tensor } from ${url("../src/index.ts")};
try {
  const model = await smallLlama("gpu");
  const optimizer = adamOf(model);
  const ids = Int32Array.from({ length: 64 }, (_, i) => (i * 7) % VOCABULARY);
  for (let step = 0; step < 6; step++) {
    const loss = await scope(() => model.loss(tensor(ids, { shape: [1, 64], device: "gpu" }), ids).item());
    console.log(new Uint32Array(Float32Array.of(loss).buffer)[0]);
    recordStep(model, optimizer, 64);
  }
  // Trials run while the device is idle.
  if (process.env.LOWRANK_TUNE === "on") await new Promise((resolve) => setTimeout(resolve, 2500));
} catch (error) { console.log(error.code, error.message); }`;

function trained(env: NodeJS.ProcessEnv): Promise<string> {
  const args = ["--import=tsx", "--input-type=module", "--eval", PROGRAM];
  const child = spawn(process.execPath, args, {
    env: { ...process.env, NODE_OPTIONS: "", ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  return new Promise((resolve, reject) => {
    let out = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text));
    child.on("error", reject).on("close", () => resolve(out.trim()));
  });
}

/** Returns the tuning file below a cache folder. */
function found(cache: string): { path: string; variants: Record<string, string> } | undefined {
  const folder = join(cache, "lowrank", "tune");
  const [name] = existsSync(folder) ? readdirSync(folder) : [];
  if (name === undefined) return undefined;
  const path = join(folder, name);
  return { path, ...(JSON.parse(readFileSync(path, "utf8")) as { variants: Record<string, string> }) };
}

/** Whether there is a GPU to tune. */
function gpu(t: { log(text: string): void; pass(): void }): boolean {
  if (testDevices().includes("gpu")) return true;
  t.log("not run: no GPU is here");
  t.pass();
  return false;
}

test("each system's cache folder", (t) => {
  const home = (): string => "/home/me";
  t.is(findCacheFolder("linux", {}, home), "/home/me/.cache/lowrank");
  t.is(findCacheFolder("linux", { XDG_CACHE_HOME: "/cache" }, home), "/cache/lowrank");
  t.is(findCacheFolder("linux", { XDG_CACHE_HOME: "relative" }, home), "/home/me/.cache/lowrank");
  t.is(findCacheFolder("linux", { XDG_CACHE_HOME: "" }, home), "/home/me/.cache/lowrank");
  t.is(findCacheFolder("darwin", { XDG_CACHE_HOME: "/cache" }, home), "/home/me/Library/Caches/lowrank");
  t.is(findCacheFolder("win32", { LOCALAPPDATA: "/local" }, home), "/local/lowrank");
  t.is(findCacheFolder("win32", {}, home), "/home/me/AppData/Local/lowrank");
  const nowhere = (): string => {
    throw new Error("no such user");
  };
  t.is(findCacheFolder("linux", {}, nowhere), undefined);
  t.is(
    findCacheFolder("linux", {}, () => ""),
    undefined,
  );
  t.true(isAbsolute(findCacheFolder() ?? "/"));
});

test.serial("a notice of a device is a warning of the process", async (t) => {
  if (!gpu(t)) return;
  const warned = once(process, "warning") as Promise<[Error]>;
  // The device's callback does not keep the event loop alive.
  const open = setInterval(() => undefined, 1000);
  session().noticeOnPurpose("gpu", "a form gives other numbers");
  const [warning] = await warned;
  clearInterval(open);
  t.is(warning.name, "LowrankWarning");
  t.is(warning.message, "a form gives other numbers");
});

test("a wrong LOWRANK_TUNE is refused when a GPU is opened", async (t) => {
  if (!gpu(t)) return;
  t.regex(await trained({ LOWRANK_TUNE: "yes" }), /^ERR_OPTION LOWRANK_TUNE is "yes"; it may be on or off/);
});

test.serial(
  "a run's bits do not depend on tuning, whether during the run, before it, or not at all",
  async (t) => {
    if (!gpu(t)) return;
    const cache = temporary();
    const env = { XDG_CACHE_HOME: cache, LOCALAPPDATA: cache };
    const plain = await trained({ ...env, LOWRANK_TUNE: "off" });
    t.regex(plain, /^\d+(\n\d+){5}$/);
    t.is(found(cache), undefined, "without trials nothing is stored");
    // On a busy machine one run's two seconds may not be enough for a class.
    for (let attempt = 0; attempt < 5 && found(cache) === undefined; attempt++)
      t.is(await trained({ ...env, LOWRANK_TUNE: "on" }), plain);
    const kept = found(cache);
    if (kept === undefined) return t.fail("nothing was stored");
    t.true(Object.keys(kept.variants).length > 0);
    t.true(Object.keys(kept.variants).every((name) => name.startsWith("gemm ")));
    t.is(await trained({ ...env, LOWRANK_TUNE: "on" }), plain);
  },
);

test.serial("devices --tune tries the usual shapes and shows the results", async (t) => {
  if (!gpu(t)) return;
  const cache = temporary();
  const env = { XDG_CACHE_HOME: cache, LOCALAPPDATA: cache };
  const devices = ["devices", "--device", "gpu", "--json"];
  const listed = await lowrank(devices, { env });
  t.regex(listed.stderr, /--device of devices without --tune: .*; give --tune, too$/m);
  const { status, stdout, stderr } = await lowrank([...devices, "--tune"], { env });
  t.is(stderr, "");
  t.is(status, 0);
  const classes = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as TuneReport["classes"][number]);
  t.true(classes.length > 10, `${classes.length} classes`);
  for (const { class: name, chosen, forms } of classes) {
    const said = `${name}: ${JSON.stringify(forms)}`;
    t.true(forms.length > 1, said);
    t.true(
      forms.every(({ verdict }) => ["right", "slow"].includes(verdict)),
      said,
    );
    t.true(
      forms.some(({ form, milliseconds = 0 }) => form === chosen && milliseconds > 0),
      said,
    );
  }
  const { variants = {} } = found(cache) ?? {};
  t.deepEqual(
    Object.entries(variants).sort(),
    classes.map((one) => [`${one.family} ${one.class}`, one.chosen]).sort(),
  );
});

test("devices --tune says in a line why it cannot", async (t) => {
  for (const [argv, env, said] of [
    [["--device", "cpu"], {}, /cpu is not a GPU; only GPUs are autotuned/],
    [["--device", "gpu:99"], {}, /no GPU number 99/],
    [[], { LOWRANK_TUNE: "off" }, /LOWRANK_TUNE is off/],
    [[], { LOWRANK_TUNE: "1" }, /LOWRANK_TUNE is "1"/],
    [[], { VK_DRIVER_FILES: "/none", VK_ICD_FILENAMES: "/none" }, /no usable GPU; no driver for Vulkan/],
  ] as [string[], NodeJS.ProcessEnv, RegExp][]) {
    if (process.platform !== "linux" && "VK_DRIVER_FILES" in env) continue;
    const { status, stdout, stderr } = await lowrank(["devices", "--tune", "--json", ...argv], { env });
    t.is(status, 1);
    t.is(stdout, "");
    t.regex(stderr, said);
    t.regex(stderr, ONE_LINE);
  }
});
