/** The Electron example as it stands, beside the installed package, with Electron itself emulated. */
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { EventEmitter, once } from "node:events";
import { join } from "node:path";
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

/** The example in a project, its page bundled as its package.json does; and what went into the bundle. */
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
  "the page's bundle takes the package's module for pages, and nothing of Node or the engine",
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

test.serial("a page that bundles serve is told where it runs", async (t) => {
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

  /** Resolves with what the page shows as soon as that fits. */
  async shows(expected: RegExp): Promise<string> {
    const state = this.document.getElementById("state");
    return new Promise((resolve) => {
      // At once: what is shown may have changed again before a promise is gone on with.
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
  #text = "";

  get textContent(): string {
    return this.#text;
  }

  set textContent(text: string) {
    this.#text = text;
    this.changes.emit("change");
  }
}

/** What the example's `import … from "electron"` gets. */
interface Emulated {
  app: EventEmitter & { whenReady(): Promise<void>; getPath(): string; quit(): void };
  ipcMain: EventEmitter;
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
      send: (channel: string) => emulated.ipcMain.emit(channel, { sender }),
    });
    const sender = {
      isDestroyed: () => false,
      send: (channel: string) => ipcRenderer.emit(channel, {}),
      postMessage: (channel: string, data: unknown, ports: unknown[]) =>
        ipcRenderer.emit(channel, { ports }, data),
    };
    let quit = false;
    const emulated: Emulated = {
      app: Object.assign(new EventEmitter(), {
        whenReady: () => Promise.resolve(),
        getPath: () => userData,
        quit() {
          let prevented = false;
          emulated.app.emit("before-quit", { preventDefault: () => (prevented = true) });
          if (prevented) return;
          quit = true;
          emulated.app.emit("has quit");
        },
      }),
      ipcMain: new EventEmitter(),
      BrowserWindow: class {
        constructor({
          webPreferences,
        }: {
          webPreferences: { preload: string; contextIsolation: boolean; sandbox: boolean };
        }) {
          t.true(webPreferences.contextIsolation && webPreferences.sandbox);
          const preload = readFileSync(webPreferences.preload, "utf8");
          vm.runInNewContext(preload, { window: page, require: () => ({ ipcRenderer }) });
        }
        loadFile(path: string): Promise<void> {
          t.regex(readFileSync(path, "utf8"), /<script type="module" src="page\.bundle\.js">/);
          const { document } = page;
          // A sandboxed page has this much of what Node has, too.
          const web = { window: page, document, setTimeout, clearTimeout, queueMicrotask, AbortController };
          vm.runInNewContext(readFileSync(join(folder, "page.bundle.js"), "utf8"), web);
          return Promise.resolve();
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
      "export const { app, BrowserWindow, ipcMain, MessageChannelMain, utilityProcess } = globalThis.emulatedElectron;",
    );

    await import(pathToFileURL(join(folder, "main.js")).href);
    await page.shows(/^ready$/);
    page.click("start");
    await page.shows(/^step \d+ of \d+, loss \d+\.\d{4}$/);
    page.click("stop");
    const stopped = Number(/\d+/.exec(await page.shows(/^stopped at step \d+$/))?.[0]);
    t.true(stopped >= 1);

    page.click("resume");
    const step = Number(/\d+/.exec(await page.shows(/^step \d+ of/))?.[0]);
    t.is(step, stopped + 1);
    hosts[0]?.kill("SIGKILL");
    await page.shows(/^ERR_DISCONNECTED: .*resume: true/);
    await page.shows(/^ready to resume$/);
    t.is(hosts.length, 2);

    page.click("resume");
    await page.shows(/^step \d+ of/);
    const end = once(emulated.app, "has quit");
    emulated.app.quit();
    t.false(quit, "it waits for the checkpoint");
    t.like(await hosts[1]?.ended, { status: 0, errors: "" });
    await end;
    t.true(existsSync(join(userData, "adapter", "adapter_model.safetensors")));
  },
);
