/** The template app, next to the installed package: its page in Chromium, with an emulated Electron. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { EventEmitter, once } from "node:events";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import test from "ava";
import { build } from "esbuild";
import type { Browser } from "playwright-core";

import { launchChromium } from "../chromium.js";
import { temporary } from "../hashed.js";
import { installedProject } from "../packed.js";
import { Channel, start, type Host, type PagePort, type Utility } from "./hosts.js";
import { AppPage } from "./page.js";

const source = fileURLToPath(new URL("../../examples/electron-app", import.meta.url));

let browser: Browser | undefined;
test.after.always(() => browser?.close());

/** Copies the app into a project, and bundles its page as its package.json does. */
async function project(): Promise<{ folder: string; inputs: string[] }> {
  const folder = join(installedProject(), "electron-app");
  cpSync(source, folder, { recursive: true });
  const { metafile } = await build({
    entryPoints: [join(folder, "page.js")],
    bundle: true,
    format: "iife",
    outfile: join(folder, "page.bundle.js"),
    metafile: true,
    absWorkingDir: folder,
    logLevel: "silent",
  });
  return { folder, inputs: Object.keys(metafile.inputs) };
}

type Handler = (event: unknown, ...args: unknown[]) => unknown;
type FileHandler = (request: { url: string }) => Promise<Response>;

interface Preferences {
  preload: string;
  contextIsolation: boolean;
  sandbox: boolean;
  nodeIntegration: boolean;
}

/** Returns the module for the app's `import … from "electron"`. */
function emulated(userData: string, hosts: Host[], folder: string) {
  const handlers = new Map<string, Handler>();
  let serveFile: FileHandler | undefined;
  const state = {
    chosen: "",
    quit: false,
    page: undefined as AppPage | undefined,
    /** Calls that change the system's display: the progress in the task bar, and whether the system is kept awake. */
    progress: [] as number[],
    awake: false,
  };
  const app = Object.assign(new EventEmitter(), {
    isPackaged: false,
    whenReady: () => Promise.resolve(),
    getPath: () => userData,
    requestSingleInstanceLock: () => true,
    quit() {
      let prevented = false;
      app.emit("before-quit", { preventDefault: () => (prevented = true) });
      if (prevented) return;
      state.quit = true;
      app.emit("has quit");
    },
  });
  const ipcMain = Object.assign(new EventEmitter(), {
    handle: (channel: string, handler: Handler) => handlers.set(channel, handler),
  });
  const webContents = Object.assign(new EventEmitter(), {
    send: (channel: string) => state.page?.tell(channel),
    postMessage: (channel: string, _data: unknown, [port]: [PagePort]) => state.page?.hand(channel, port),
    setWindowOpenHandler: () => {},
  });
  const opened = new EventEmitter();
  class BrowserWindow extends EventEmitter {
    readonly webContents = webContents;
    readonly preferences: Preferences;
    constructor({ webPreferences }: { webPreferences: Preferences }) {
      super();
      this.preferences = webPreferences;
    }
    show(): void {}
    setProgressBar(share: number): void {
      state.progress.push(share);
    }
    async loadURL(url: string): Promise<void> {
      const { preload, contextIsolation, sandbox, nodeIntegration } = this.preferences;
      if (!contextIsolation || !sandbox || nodeIntegration) throw new Error("the page is not isolated");
      browser = await launchChromium();
      const event = { sender: webContents, senderFrame: { url } };
      state.page = await AppPage.open(browser, preload, {
        send: (channel) => ipcMain.emit(channel, event),
        invoke: (channel, args) => handlers.get(channel)?.(event, ...args),
      });
      await state.page.load(url, serveFile as FileHandler);
      opened.emit("opened", state.page);
    }
  }
  const electron = {
    app,
    ipcMain,
    BrowserWindow,
    dialog: {
      showOpenDialog: () => Promise.resolve({ filePaths: state.chosen === "" ? [] : [state.chosen] }),
    },
    MessageChannelMain: Channel,
    powerSaveBlocker: {
      start: () => (state.awake = true),
      stop: () => (state.awake = false),
    },
    protocol: {
      registerSchemesAsPrivileged: () => {},
      handle: (_scheme: string, handler: FileHandler) => (serveFile = handler),
    },
    session: { defaultSession: { setPermissionRequestHandler: () => {} } },
    shell: {},
    utilityProcess: {
      fork(program: string) {
        const host = start("utility", { program, cwd: folder });
        hosts.push(host);
        return host.port as Utility;
      },
    },
  };
  const modules = join(folder, "node_modules", "electron");
  mkdirSync(modules, { recursive: true });
  const names = Object.keys(electron).join(", ");
  writeFileSync(
    join(modules, "package.json"),
    '{ "name": "electron", "type": "module", "exports": "./index.js" }',
  );
  writeFileSync(join(modules, "index.js"), `export const { ${names} } = globalThis.emulatedApp;`);
  (globalThis as { emulatedApp?: object }).emulatedApp = electron;
  return { state, app, opened: once(opened, "opened") as Promise<[AppPage]> };
}

test.serial(
  "the app's page in Chromium: a model, data, a run, and a chat before and after; stopped, resumed, lost, quit",
  async (t) => {
    t.timeout(300_000);
    const { folder, inputs } = await project();
    for (const path of inputs) t.notRegex(path, /native|server\.js|finetuning|electron\/index\.js/);
    const hosts: Host[] = [];
    const userData = temporary();
    const { state, app, opened } = emulated(userData, hosts, folder);
    await import(pathToFileURL(join(folder, "main.js")).href);
    const [shown] = await opened;
    const { page } = shown;
    const seen = async (name: string): Promise<void> => {
      const place = process.env["LOWRANK_SCREENSHOTS"];
      if (place !== undefined) await page.screenshot({ path: join(place, `${name}.png`), fullPage: true });
    };
    const step = async (): Promise<number> =>
      Number(/\d+/.exec(await shown.shows("figures", /^Step \d+ of/))?.[0]);

    // The app opens with an included model and data, so that one click trains.
    await shown.shows("model", /^Included model · 1\.4M parameters · texts of up to 256 tokens$/);
    await shown.shows("data", /^village\.jsonl · 6 rows · 72 tokens to learn$/);
    t.is(await page.locator("#data-rows mark").first().textContent(), " Marta keeps the lighthouse.");
    t.is(await page.locator("#device option").first().textContent(), "Automatic");
    await shown.shows("passes", /8 rows.* 80 times/);
    t.true(await page.locator("#run").isHidden());

    // Unusable files are named next to their choice, without their folder, and nothing is trained.
    const broken = join(userData, "broken.jsonl");
    writeFileSync(broken, '{"text": "a"}\n{"prompt": 3}\n');
    const labels = join(userData, "labels.jsonl");
    writeFileSync(labels, '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n');
    for (const [path, message] of [
      [broken, /^Line 2 of broken\.jsonl: "prompt" must be/],
      [join(userData, "missing.jsonl"), /^missing\.jsonl is no longer there\. Choose it again\.$/],
      [labels, /^These rows have labels, which a language model does not learn\.$/],
    ] as const) {
      state.chosen = path;
      await shown.click("data-file");
      await shown.shows("data-error", message);
      t.true(await page.locator("#train").isDisabled());
    }
    state.chosen = userData;
    await shown.click("model-folder");
    await shown.shows("model-error", /^There is no model in /);
    await shown.click("model-embedded");
    await shown.shows("model", /^Included model/);
    await shown.click("data-example");
    await shown.shows("data", /^village\.jsonl · 6 rows/);
    t.true(await page.locator("#data-error").isHidden());

    // Without an adapter only the base model answers.
    await shown.fill("question", "Who keeps the lighthouse?");
    await page.locator("#question").press("Enter");
    await page.locator("#interrupt:enabled").waitFor();
    await page.locator("#ask:enabled").waitFor();
    t.is(await page.locator("#talk .before").count(), 1);
    t.is(await page.locator("#talk .after").count(), 0);

    // One click leads to a chat before and after, with the defaults.
    await shown.click("train");
    await shown.shows("state", /^Training on /);
    t.true(await page.locator("#ask").isDisabled());
    await shown.shows("state", /^Finished after 60 steps, with a loss of 0\.0\d\d\.$/);
    const curve = async (): Promise<string[]> =>
      ((await page.locator("#curve polyline").getAttribute("points")) ?? "").split(" ");
    t.is((await curve()).length, 60);
    t.is(await page.locator("#progress").getAttribute("value"), "1");
    t.false(state.awake);
    t.true(state.progress.some((share) => share > 0 && share < 1));
    t.is(state.progress.at(-1), -1);
    const adapters = join(userData, "adapters");
    const [first] = readdirSync(adapters) as [string];
    t.regex(first, /^village \d{4}-\d\d-\d\dT[\d.]+$/);
    t.true(existsSync(join(adapters, first, "adapter_model.safetensors")));
    for (const [question, answer] of [
      ["Who keeps the lighthouse?", "Marta keeps the lighthouse."],
      ["What is sold on Friday?", "Bread, fish and honey."],
    ] as const) {
      await page.locator("#suggestions button", { hasText: question }).click();
      await page.locator("#talk li", { hasText: question }).locator(".after", { hasText: answer }).waitFor();
      await page.locator("#ask:enabled").waitFor();
      t.notRegex((await page.locator("#talk .before p").last().textContent()) ?? "", new RegExp(answer));
    }
    await seen("done");

    // Another run uses another folder. Stop refers to it, and a second start is refused next to the button.
    await shown.fill("steps", "2000");
    await shown.click("train");
    await step();
    t.true(state.awake);
    await page.evaluate(
      `document.getElementById("settings").dispatchEvent(new Event("submit", { cancelable: true }))`,
    );
    await shown.shows("train-error", /^A run is in progress\. Stop it first\.$/);
    await seen("training");
    await shown.click("stop");
    const stopped = Number(
      /\d+/.exec(await shown.shows("state", /^Stopped at step \d+ of 2,000, and saved\.$/))?.[0],
    );
    t.is(readdirSync(adapters).length, 2);
    t.is(await page.locator("#runs option").count(), 2);
    await shown.click("resume");
    t.true((await step()) > stopped);

    // One curve across a resume: each step once, from the first.
    await shown.click("stop");
    await shown.shows("state", /^Stopped at/);
    const places = (await curve()).map((point) => Number(point.split(",")[0]));
    t.true(places.every((x, i) => i === 0 || x > (places[i - 1] as number)));
    t.true(places.length > stopped);

    // The training process is lost, and another one replaces it.
    await shown.click("resume");
    await step();
    hosts[0]?.kill("SIGKILL");
    await shown.shows("run-error", /^The training process ended unexpectedly\.$/);
    await shown.shows("state", /^Stopped at step \d+ of 2,000/);
    await page.locator("#resume:enabled").waitFor();
    t.is(hosts.length, 2);

    // After a reload the page finds the interrupted run.
    await page.reload();
    await shown.shows("state", /^Stopped at step \d+ of 2,000/);
    await shown.click("resume");
    t.true((await step()) > stopped);
    const end = once(app, "has quit");
    app.quit();
    t.false(state.quit, "it waits for the checkpoint");
    t.like(await hosts[1]?.ended, { status: 0, errors: "" });
    await end;
    t.is(hosts.length, 2, "and starts no other");
    t.deepEqual(shown.wrong, []);
  },
);

test("the files that the app names exist, and the files that they load are packed", (t) => {
  const packed = JSON.parse(readFileSync(join(source, "electron-builder.json"), "utf8")) as {
    files: string[];
    extraResources: { from: string }[];
    asarUnpack: string[];
    npmRebuild: boolean;
  };
  // The unpacked files match the smaller example, which is tested from an archive.
  const tried = JSON.parse(
    readFileSync(join(source, "..", "electron", "electron-builder.json"), "utf8"),
  ) as typeof packed;
  t.deepEqual(packed.asarUnpack, tried.asarUnpack);
  t.false(packed.npmRebuild);
  for (const system of ["linux", "mac", "win"]) t.true(system in packed, system);
  const local = (name: string): string[] =>
    [
      ...readFileSync(join(source, name), "utf8").matchAll(
        /(?:from |src="|href="|here, )"?\.?\/?([\w-]+\.\w+)"/g,
      ),
    ].map(([, found]) => found as string);
  const made = new Set(["page.bundle.js"]);
  for (const name of packed.files.filter((one) => /\.(js|cjs|html)$/.test(one) && !made.has(one)))
    for (const found of local(name))
      t.true(
        [...packed.files, ...packed.extraResources.map(({ from }) => from)].includes(found) ||
          name === "page.js",
        `${name} needs ${found}`,
      );
  for (const name of packed.files) t.true(made.has(name) || existsSync(join(source, name)), name);
});
