/** The app to start from, as it stands beside the installed package: its page in Chromium, Electron itself emulated. */
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
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

/** The app in a project, its page bundled as its package.json does. */
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

/** What the app's `import … from "electron"` gets. */
function emulated(userData: string, hosts: Host[], folder: string) {
  const handlers = new Map<string, (event: unknown, ...args: unknown[]) => unknown>();
  const state = { chosen: "", quit: false, page: undefined as AppPage | undefined };
  const app = Object.assign(new EventEmitter(), {
    isPackaged: false,
    whenReady: () => Promise.resolve(),
    getPath: () => userData,
    quit() {
      let prevented = false;
      app.emit("before-quit", { preventDefault: () => (prevented = true) });
      if (prevented) return;
      state.quit = true;
      app.emit("has quit");
    },
  });
  const ipcMain = Object.assign(new EventEmitter(), {
    handle: (channel: string, handler: (event: unknown, ...args: unknown[]) => unknown) =>
      handlers.set(channel, handler),
  });
  const sender = {
    isDestroyed: () => state.page?.page.isClosed() ?? true,
    send: (channel: string) => state.page?.tell(channel),
    postMessage: (channel: string, _data: unknown, [port]: [PagePort]) => state.page?.hand(channel, port),
  };
  interface Preferences {
    preload: string;
    contextIsolation: boolean;
    sandbox: boolean;
    nodeIntegration: boolean;
  }
  const electron = {
    app,
    ipcMain,
    dialog: {
      showOpenDialog: () => Promise.resolve({ filePaths: state.chosen === "" ? [] : [state.chosen] }),
    },
    BrowserWindow: class {
      readonly preferences: Preferences;
      constructor({ webPreferences }: { webPreferences: Preferences }) {
        this.preferences = webPreferences;
      }
      async loadFile(path: string): Promise<void> {
        const { preload, contextIsolation, sandbox, nodeIntegration } = this.preferences;
        if (!contextIsolation || !sandbox || nodeIntegration) throw new Error("the page is not kept apart");
        browser = await launchChromium();
        state.page = await AppPage.open(browser, preload, {
          send: (channel) => ipcMain.emit(channel, { sender }),
          invoke: (channel, args) => handlers.get(channel)?.({ sender }, ...args),
        });
        await state.page.load(path);
      }
    },
    MessageChannelMain: Channel,
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
  return { state, app };
}

test.serial(
  "the app's page in Chromium: a model, data, a run, and a chat before and after; stopped, resumed, lost, quit",
  async (t) => {
    t.timeout(300_000);
    const { folder, inputs } = await project();
    for (const path of inputs) t.notRegex(path, /native|server\.js|finetuning|electron\/index\.js/);
    const hosts: Host[] = [];
    const userData = temporary();
    const { state, app } = emulated(userData, hosts, folder);
    await import(pathToFileURL(join(folder, "main.js")).href);
    const shown = state.page as AppPage;
    const { page } = shown;
    const seen = async (name: string): Promise<void> => {
      const place = process.env["LOWRANK_SCREENSHOTS"];
      if (place !== undefined) await page.screenshot({ path: join(place, `${name}.png`), fullPage: true });
    };
    await shown.shows("state", /^Ready\.$/);
    t.true(await page.locator("#train").isDisabled());
    t.deepEqual(await page.locator("#device option").first().textContent(), "the fastest");

    // Data is looked at as a model's tokens; so without one there is nothing to look at.
    await shown.click("data-example");
    await shown.shows("notice", /^choose a model first/);
    await shown.click("model-embedded");
    await shown.shows(
      "model",
      /LlamaForCausalLM, 1,443,456 weights, texts of up to 256 tokens, without a chat/,
    );
    t.true(await page.locator("#notice").isHidden());
    const broken = join(userData, "broken.jsonl");
    writeFileSync(broken, '{"text": "a"}\n{"prompt": 3}\n');
    state.chosen = broken;
    await shown.click("data-file");
    await shown.shows("notice", /^ERR_DATA_ROW: .*broken\.jsonl.*2/);
    t.true(await page.locator("#train").isDisabled());
    await shown.click("data-example");
    await shown.shows(
      "data",
      /village\.jsonl: 6 of 6 rows are trained on, 0 of them cut, 0 left out; 132 tokens, 72/,
    );
    t.is(await page.locator("#data-rows mark").first().textContent(), " Marta keeps the lighthouse.</s>");

    // From a click to a chat before and after.
    await shown.fill("rate", "0.005");
    await shown.fill("steps", "40");
    await shown.click("train");
    await shown.shows("state", /^Done after 40 steps and \d+ s, loss 0\.\d{4}: .*village$/);
    const curve = (await page.locator("#curve path").getAttribute("d")) ?? "";
    t.is(curve.split("L").length, 40);
    t.is(await page.locator("#progress").getAttribute("value"), "1");
    t.true(existsSync(join(userData, "adapters", "village", "adapter_model.safetensors")));
    for (const [question, answer] of [
      ["Who keeps the lighthouse?", "Marta keeps the lighthouse."],
      ["What is sold on Friday?", "Bread, fish and honey."],
    ] as const) {
      await shown.fill("question", question);
      await page.locator("#question").press("Enter");
      await page.locator("#ask:enabled").waitFor();
      t.is(await page.locator("#after p").last().textContent(), answer);
      t.not(await page.locator("#before p").last().textContent(), answer);
    }
    await seen("done");

    // Stopped, and gone on with.
    await shown.fill("steps", "2000");
    await shown.click("train");
    await shown.shows("state", /^Step \d+ of 2000: loss/);
    await seen("training");
    await shown.click("stop");
    const stopped = Number(/\d+/.exec(await shown.shows("state", /^Stopped at step \d+, and saved\.$/))?.[0]);
    await shown.click("resume");
    const step = Number(/\d+/.exec(await shown.shows("state", /^Step \d+ of 2000/))?.[0]);
    t.true(step > stopped, `${step} after ${stopped}`);

    // The process that trains is lost; another takes its place, and the chat is there again.
    hosts[0]?.kill("SIGKILL");
    await shown.shows("notice", /^ERR_DISCONNECTED: .*resume: true/);
    await shown.shows("state", /^Ready to go on\.$/);
    t.is(hosts.length, 2);
    await shown.click("resume");
    await shown.shows("state", /^Step \d+ of 2000/);
    const end = once(app, "has quit");
    app.quit();
    t.false(state.quit, "it waits for the checkpoint");
    t.like(await hosts[1]?.ended, { status: 0, errors: "" });
    await end;
    t.is(hosts.length, 2, "and starts none in its place");
    t.deepEqual(shown.wrong, []);
  },
);

test("what the app's files name is there, and what they load is packed", (t) => {
  const packed = JSON.parse(readFileSync(join(source, "electron-builder.json"), "utf8")) as {
    files: string[];
    extraResources: { from: string }[];
    asarUnpack: string[];
    npmRebuild: boolean;
  };
  // What is unpacked is what the smaller example unpacks, which is tried out of an archive.
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
