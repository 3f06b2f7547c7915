// `npm run test:platforms [-- NAMES…]`: builds the packages of all platforms that can be built on Linux x64, in a Debian 12 root, and tries each on
// its platform: installs it from its tarball, trains, saves, stops and resumes. It also runs the engine's own tests, or checks its types, where
// possible. Prints tables of the results; the exit status is 1 if something failed. Roots, Rust's cache and builds are kept in the folder
// LOWRANK_PLATFORMS.
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { basename, join, resolve } from "node:path";
import { argv, env } from "node:process";
import { WHOLE, attempt } from "./attempt.mjs";
import { builder, pack, sizes } from "./builder.mjs";
import { missing } from "./debian.mjs";
import { suitesTable } from "./results.mjs";
import { SUITES } from "./suites.mjs";
import { failed, table } from "./table.mjs";
import { TRIALS } from "./targets.mjs";

/** The platform whose losses all others must equal; it is tried once, on its first system, if it is not requested. */
const FIRST = "linux-x64-gnu";

const known = [...Object.keys(TRIALS), ...Object.keys(SUITES)];
const asked = argv.length > 2 ? argv.slice(2) : known;
const suites = asked.filter((name) => name in SUITES);
const trials = asked.filter((name) => name in TRIALS);
const names = trials.length === 0 ? [] : [FIRST, ...trials.filter((name) => name !== FIRST)];
const unknown = asked.filter((name) => !known.includes(name));
const lacking = [
  ...unknown.map((name) => `${name} is not tried; there are ${known.join(", ")}`),
  ...missing((env.PATH ?? "").split(":")),
];
if (lacking.length > 0) {
  for (const what of lacking) console.error(`lowrank: test:platforms: ${what}`);
  process.exit(2);
}

const cache = env.XDG_CACHE_HOME ?? join(homedir(), ".cache");
const folder = resolve(env.LOWRANK_PLATFORMS ?? join(cache, "lowrank-platforms"));
const tell = (what) => console.error(`lowrank: ${what}`);
mkdirSync(folder, { recursive: true });

const build = builder(folder, tell);
if (names.length > 0) tell("main: packing");
const main = names.length > 0 ? pack(build, folder, "main") : undefined;
const rows = [];
const packed = new Map();
/** By recipe, the losses of the first platform, which all others must equal. */
const losses = new Map();
for (const name of names) {
  tell(`${name}: building`);
  try {
    packed.set(name, pack(build, folder, name));
  } catch (error) {
    rows.push({ platform: name, unbuilt: error.message, wrong: {} });
    tell(`${name}: not built: ${error.message}`);
    continue;
  }
  const tried = asked.includes(name) ? TRIALS[name] : TRIALS[name].slice(0, 1);
  for (const trial of tried) {
    tell(`${name}: ${trial.where}: trying`);
    const seen = tryOn(name, trial, expected(name, trial.recipe));
    if (name === FIRST && seen.wrong.train === null && !losses.has(WHOLE)) losses.set(WHOLE, seen.losses);
    rows.push({ platform: name, where: trial.where, ...sizes(packed.get(name)), ...seen });
  }
}
const seen = suites.map((name) => {
  const { where, row } = SUITES[name];
  tell(`${name}: ${where}`);
  try {
    return { name, where, ...row(folder, build, tell) };
  } catch (error) {
    return { name, where, wrong: [error.message] };
  }
});
const tables = [...(rows.length > 0 ? [table(rows)] : []), ...(seen.length > 0 ? [suitesTable(seen)] : [])];
console.log(tables.join("\n\n"));
writeFileSync(join(folder, "table.md"), `${tables.join("\n\n")}\n`);
process.exitCode = rows.some(failed) || seen.some(({ wrong }) => wrong.length > 0) ? 1 : 0;

/** The required losses of a platform: any losses for the first platform; if that one failed, no losses are right. */
function expected(name, recipe = WHOLE) {
  if (name === FIRST && recipe === WHOLE) return losses.get(recipe);
  if (!losses.has(recipe) && packed.has(FIRST))
    losses.set(recipe, tryOn(FIRST, { ...TRIALS[FIRST][0], recipe }).losses);
  return losses.get(recipe) ?? [];
}

function tryOn(name, { system, recipe }, held) {
  try {
    const started = system(folder, build, tell);
    const tarballs = [main, packed.get(name)];
    started.prepare?.(tarballs);
    const install = (log) => {
      for (const path of tarballs) copyFileSync(path, join(started.trial, basename(path)));
      return started.npm(["install", ...tarballs.map((path) => `./${basename(path)}`)], log);
    };
    return attempt(started.trial, { ...started, install }, held, recipe);
  } catch (error) {
    return { wrong: { install: error.message } };
  }
}
