/** The unmodified Electron example, next to the installed package, with an emulated Electron. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { EventEmitter, once } from "node:events";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import vm from "node:vm";

import test from "ava";
import { build } from "esbuild";

import { Channel, endAll, PagePort, start, type Host, type Utility } from "./hosts.js";
import { temporary } from "../hashed.js";
import { installedProject } from "../packed.js";

test.after.always(endAll);

const example = fileURLToPath(new URL("../../examples/electron", import.meta.url));

let bundled: Promise<{ folder: string; inputs: string[]; imports: object[] }> | undefined;

/**
 * Copies the example into a project and bundles its page as its package.json does; returns also the list of bundled
 * files.
 */
function project(): NonNullable<typeof bundled> {
  return (bundled ??= (async () => {
    const folder = join(installedProject(), "electron-example");
    cpSync(example, folder, { recursive: true });
    const { metafile } = await build({
      entryPoints: [join(folder, "page.js")],
      bundle: true,
      format: "esm",
      outfile: join(folder, "page.bundle.js"),
      metafile: true,
      absWorkingDir: folder,
      logLevel: "silent",
    });
    const imports = Object.values(metafile.outputs).flatMap((output) => output.imports);
    return { folder, inputs: Object.keys(metafile.inputs), imports };
  })());
}

test.serial(
  "the page's bundle contains the package's module for pages, and nothing of Node or the engine",
  async (t) => {
    const { inputs, imports } = await project();
    t.true(
      inputs.some((path) => path.endsWith("lowrank/dist/electron/browser.js")),
      inputs.join(),
    );
    for (const path of inputs) t.notRegex(path, /native|server\.js|finetuning|electron\/index\.js/);
    t.deepEqual(imports, []);
  },
);

test.serial("a page that bundles serve gets an error that says where serve runs", async (t) => {
  const folder = installedProject();
  const { outputFiles } = await build({
    stdin: {
      contents:
        'import { serve } from "lowrank/electron"; try { serve(); } catch (error) { said(error.code, error.message); }',
      resolveDir: folder,
    },
    bundle: true,
    write: false,
    logLevel: "silent",
  });
  const said: string[] = [];
  vm.runInNewContext(outputFiles[0]?.text ?? "", { said: (...words: string[]) => said.push(...words) });
  t.is(said[0], "ERR_NATIVE_LOAD");
  t.regex(said[1] ?? "", /bundled for a page/);
});

/** A page's window: messages to itself, and elements by their ids. */
class Window extends EventTarget {
  readonly elements = new Map<string, Element>();

  readonly document = {
    getElementById: (id: string): Element => {
      const found = this.elements.get(id) ?? new Element();
      this.elements.set(id, found);
      return found;
    },
  };

  postMessage(data: unknown, _origin: string, ports: readonly PagePort[] = []): void {
    setImmediate(() =>
      this.dispatchEvent(Object.assign(new Event("message"), { data, ports, source: this })),
    );
  }

  click(id: string): void {
    this.elements.get(id)?.dispatchEvent(new Event("click"));
  }

  /** Resolves with the text of the page as soon as it matches. */
  async shows(expected: RegExp, id = "state"): Promise<string> {
    const state = this.document.getElementById(id);
    return new Promise((resolve) => {
      // Checks synchronously, since the text may change again before a promise continues.
      const look = (): void => {
        const { textContent } = state;
        if (!expected.test(textContent)) return;
        state.changes.removeListener("change", look);
        resolve(textContent);
      };
      state.changes.on("change", look);
      look();
    });
  }
}

class Element extends EventTarget {
  readonly changes = new EventEmitter();
  disabled = false;
  value: unknown;
  #text = "";

  get textContent(): string {
    return this.#text;
  }

  set textContent(text: string) {
    this.#text = text;
    this.changes.emit("change");
  }
}

type FileHandler = (request: { url: string }) => Promise<Response>;

/** The parts of Electron that the example imports. */
interface Emulated {
  app: EventEmitter & {
    whenReady(): Promise<void>;
    getPath(): string;
    requestSingleInstanceLock(): boolean;
    quit(): void;
  };
  ipcMain: EventEmitter;
  dialog: object;
  protocol: object;
  BrowserWindow: unknown;
  MessageChannelMain: unknown;
  utilityProcess: { fork(program: string): Utility };
}

test.serial(
  "a run is started, watched, stopped, resumed, lost and resumed from the page; quitting saves a checkpoint",
  async (t) => {
    t.timeout(120_000);
    const { folder } = await project();
    const page = new Window();
    const hosts: Host[] = [];
    const userData = temporary();
    const ipcRenderer = Object.assign(new EventEmitter(), {
      send: (channel: string) => emulated.ipcMain.emit(channel, { sender, senderFrame: { url: loaded } }),
    });
    let loaded = "";
    let serveFile: FileHandler | undefined;
    const sender = {
      send: (channel: string) => ipcRenderer.emit(channel, {}),
      postMessage: (channel: string, data: unknown, ports: unknown[]) =>
        ipcRenderer.emit(channel, { ports }, data),
    };
    let quit = false;
    const location = { origin: "app://lowrank" };
    const emulated: Emulated = {
      app: Object.assign(new EventEmitter(), {
        whenReady: () => Promise.resolve(),
        getPath: () => userData,
        requestSingleInstanceLock: () => true,
        quit() {
          let prevented = false;
          emulated.app.emit("before-quit", { preventDefault: () => (prevented = true) });
          if (prevented) return;
          quit = true;
          emulated.app.emit("has quit");
        },
      }),
      ipcMain: new EventEmitter(),
      dialog: {},
      protocol: {
        registerSchemesAsPrivileged: () => {},
        handle: (_scheme: string, handler: FileHandler) => (serveFile = handler),
      },
      BrowserWindow: class extends EventEmitter {
        readonly webContents = sender;
        constructor({
          webPreferences,
        }: {
          webPreferences: { preload: string; contextIsolation: boolean; sandbox: boolean };
        }) {
          super();
          t.true(webPreferences.contextIsolation && webPreferences.sandbox);
          const preload = readFileSync(webPreferences.preload, "utf8");
          vm.runInNewContext(preload, { window: page, location, require: () => ({ ipcRenderer }) });
        }
        async loadURL(url: string): Promise<void> {
          loaded = url;
          const file = async (path: string): Promise<Response> =>
            (serveFile as FileHandler)({ url: new URL(path, url).href });
          t.regex(await (await file(url)).text(), /<script type="module" src="page\.bundle\.js">/);
          t.is((await file("main.js")).status, 404);
          const { document } = page;
          // The globals that a sandboxed page shares with Node.
          const web = { document, location, setTimeout, clearTimeout, queueMicrotask, AbortController };
          vm.runInNewContext(await (await file("page.bundle.js")).text(), { window: page, ...web });
        }
      },
      MessageChannelMain: Channel,
      utilityProcess: {
        fork(program) {
          const host = start("utility", { program, cwd: folder });
          hosts.push(host);
          return host.port as Utility;
        },
      },
    };
    (globalThis as { emulatedElectron?: Emulated }).emulatedElectron = emulated;
    const modules = join(folder, "node_modules", "electron");
    mkdirSync(modules, { recursive: true });
    writeFileSync(
      join(modules, "package.json"),
      '{ "name": "electron", "type": "module", "exports": "./index.js" }',
    );
    writeFileSync(
      join(modules, "index.js"),
      `export const { ${Object.keys(emulated).join(", ")} } = globalThis.emulatedElectron;`,
    );

    await import(pathToFileURL(join(folder, "main.js")).href);
    await page.shows(/^ready$/);
    t.true(page.document.getElementById("resume").disabled, "nothing to resume yet");
    page.click("start");
    await page.shows(/^step \d+ of \d+, loss \d+\.\d\d, \d+ s left$/, "step");
    t.true(page.document.getElementById("start").disabled, "Stop refers to the active run");
    page.click("start");
    t.is(page.document.getElementById("state").textContent, "a run is in progress; stop it first");
    page.click("stop");
    const stopped = Number(/\d+/.exec(await page.shows(/^stopped at step \d+; a checkpoint is saved$/))?.[0]);
    t.true(stopped >= 1);

    page.click("resume");
    await page.shows(/^training on/);
    const step = Number(/\d+/.exec(await page.shows(new RegExp(`^step (?!${stopped} )`), "step"))?.[0]);
    t.is(step, stopped + 1);
    hosts[0]?.kill("SIGKILL");
    await page.shows(/^the training process ended unexpectedly; resume/);
    while (page.document.getElementById("resume").disabled) await nextTurn();
    t.is(hosts.length, 2);

    page.click("resume");
    await page.shows(/^training on/);
    await page.shows(new RegExp(`^step (?!${step} )`), "step");
    const end = once(emulated.app, "has quit");
    emulated.app.quit();
    t.false(quit, "it waits for the checkpoint");
    t.like(await hosts[1]?.ended, { status: 0, errors: "" });
    await end;
    const [folderOfRun, ...others] = readdirSync(join(userData, "adapters"));
    t.deepEqual(others, []);
    t.true(existsSync(join(userData, "adapters", folderOfRun as string, "adapter_model.safetensors")));
  },
);
