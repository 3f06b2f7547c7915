// `npm run test:drivers [-- NAMES…]`: runs the engine's tests and a training run on several software GPU drivers and under
// Khronos' validation layer, and compiles every kernel variant with other compilers. Prints a table of the results; the
// exit status is 1 if something failed. Downloads are kept in the folder LOWRANK_DRIVERS.
import { mkdirSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { argv, env } from "node:process";
import { STARTS_ITSELF } from "../engine-tests.mjs";
import * as compilers from "./compilers.mjs";
import { DRIVERS } from "./drivers.mjs";
import * as dx12Compilers from "./dx12/compile.mjs";
import * as dx12Tests from "./dx12/tests.mjs";
import { lacking as lackingForWine } from "./dx12/wine.mjs";
import { built, driverOf, engineTests, missing, training } from "./engine.mjs";
import { failed, table } from "./table.mjs";
import { findings, isActive, layer } from "./validation.mjs";

const cache = env.XDG_CACHE_HOME ?? join(homedir(), ".cache");
const folder = resolve(env.LOWRANK_DRIVERS ?? join(cache, "lowrank-drivers"));
const log = (name) => join(folder, `${name}.log`);

const once = (make) => {
  let made;
  return () => (made ??= make());
};
const program = once(() => {
  tell("building the engine's tests");
  return built();
});
const windowsProgram = once(() => {
  tell("building the engine's tests for Windows");
  return dx12Tests.builtForWindows();
});
const forms = once(() => {
  tell("writing all forms");
  return compilers.written(folder);
});

const PARTS = {
  ...Object.fromEntries(Object.keys(DRIVERS).map((name) => [name, () => onDriver(name)])),
  validation: validated,
  ...Object.fromEntries(
    ["tint", "spirv", "msl", "hlsl"].map((name) => [name, () => compiled(compilers[name])]),
  ),
  ...Object.fromEntries(
    dx12Compilers.NAMES.map((name) => [
      name,
      () => compiled((...of) => dx12Compilers.compiled(name, ...of, tell)),
    ]),
  ),
  ...Object.fromEntries(
    dx12Tests.NAMES.map((name) => [
      name,
      () => dx12Tests.onDx12(name, folder, windowsProgram(), log(name), tell),
    ]),
  ),
};
/** Parts that need Wine in a separate root, which only root can create. */
const IN_WINE = [...dx12Compilers.NAMES, ...dx12Tests.NAMES];

const withoutWine = lackingForWine();
const every = Object.keys(PARTS).filter((name) => withoutWine.length === 0 || !IN_WINE.includes(name));
const asked = argv.length > 2 ? argv.slice(2) : every;
if (argv.length === 2 && withoutWine.length > 0)
  tell(`without ${IN_WINE.join(", ")}: ${withoutWine.join("; ")}`);
const unknown = asked.filter((name) => !(name in PARTS));
const lacking = [
  ...unknown.map((name) => `${name} is not tested; there are ${Object.keys(PARTS).join(", ")}`),
  ...(process.platform === "linux" && process.arch === "x64" ? [] : ["it runs on Linux x64"]),
  ...(asked.some((name) => IN_WINE.includes(name)) ? withoutWine : []),
  ...missing(),
];
if (lacking.length > 0) {
  for (const what of lacking) console.error(`lowrank: test:drivers: ${what}`);
  process.exit(2);
}
mkdirSync(folder, { recursive: true });

const rows = asked.map((part) => {
  tell(part);
  const started = performance.now();
  let seen;
  try {
    seen = PARTS[part]();
  } catch (error) {
    seen = { by: "", seen: "", wrong: [error.message] };
  }
  return { part, seconds: (performance.now() - started) / 1000, ...seen };
});
const told = table(rows);
console.log(told);
writeFileSync(join(folder, "table.md"), `${told}\n`);
process.exitCode = rows.some(failed) ? 1 : 0;

function tell(what) {
  console.error(`lowrank: ${what}`);
}

function onDriver(name) {
  const { known, env: found } = DRIVERS[name];
  const env = found(folder);
  const by = driverOf(env);
  if (!known.test(by)) return { by, seen: "", wrong: [`another driver was opened: ${by}`] };
  const engine = engineTests(program(), env, log(name));
  const trained = training(env, log(`${name}-training`));
  const wrong = [...failures("the engine's tests", engine, log(name))];
  wrong.push(...failures("the training", trained, log(`${name}-training`)));
  const seen = `${engine.passed} tests of the engine, ${engine.forms} forms launched, ${trained.passed} training`;
  return { by, seen, wrong };
}

function validated() {
  const { start, env } = layer(folder);
  const found = DRIVERS.lavapipe.env(folder);
  // Test devices are never closed, and the layer's destructors run at the same time, so the exit status is meaningless.
  const how = { start, skip: STARTS_ITSELF, cleanly: false };
  const engine = engineTests(program(), { ...found, ...env }, log("validation"), how);
  const { known, other } = findings(engine.wrote);
  const wrong = failures("the engine's tests", engine, log("validation"));
  if (!isActive(engine.wrote)) wrong.push("the layer says nothing of itself: it was not loaded");
  for (const [name, count] of other) wrong.push(`${name}, ${count} times`);
  const passed = [...known].map(([name, count]) => `${name} ${count} times`).join(", ");
  return {
    by: "Khronos' layer 1.4.309",
    seen: `${engine.passed} tests of the engine, ${engine.forms} forms launched; known findings: ${passed || "none"}`,
    wrong,
  };
}

function compiled(compiler) {
  const { by, forms: well, of, wrong } = compiler(folder, forms());
  return { by, seen: `${well} of ${of} forms`, wrong };
}

function failures(what, { failed, told }, path) {
  return failed > 0 ? [`${what}: ${failed} failed, see ${path}: ${told.join(", ")}`] : [];
}
