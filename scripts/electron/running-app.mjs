// A running packaged app, controlled over the debugging protocol.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { _electron } from "playwright-core";

/** The maximum time for a state of the page to appear, in milliseconds. */
const PATIENCE = 60_000;

export class RunningApp {
  #app;
  #executable;
  #args;
  #env;
  #exited;
  /** The first window's page. */
  page;
  /** Errors of the page and its console, and its network requests. */
  wrong = [];

  /** Starts an app and waits for its window. `userData` is the folder for the app's files. */
  static async start(executable, { userData, display, env = {} }) {
    const app = new RunningApp();
    app.#executable = executable;
    // Chromium's sandbox does not start as root.
    app.#args = [`--user-data-dir=${userData}`, ...(process.getuid() === 0 ? ["--no-sandbox"] : [])];
    app.#env = { ...process.env, NODE_OPTIONS: "", DISPLAY: display, ...env };
    app.#app = await _electron.launch({
      executablePath: executable,
      // Scroll bars would cover part of full-page screenshots.
      args: [...app.#args, "--hide-scrollbars"],
      env: app.#env,
      timeout: PATIENCE,
    });
    const child = app.#app.process();
    app.#exited = new Promise((resolve) => child.once("exit", (status, signal) => resolve(signal ?? status)));
    app.page = await app.#app.firstWindow({ timeout: PATIENCE });
    app.#watch();
    return app;
  }

  #watch() {
    this.page.on("pageerror", (error) => this.wrong.push(String(error)));
    this.page.on("console", (message) => {
      if (message.type() === "error") this.wrong.push(message.text());
    });
    this.page.on("request", (request) => {
      if (!/^(file|app):/.test(request.url())) this.wrong.push(request.url());
    });
  }

  /** Calls a function in the main process with Electron's modules. */
  inMain(work, argument) {
    return this.#app.evaluate(work, argument);
  }

  /** Answers the next file dialogs with a path; without one, cancels them. */
  choose(path) {
    return this.inMain(({ dialog }, chosen) => {
      dialog.showOpenDialog = () =>
        Promise.resolve({ canceled: chosen === undefined, filePaths: chosen === undefined ? [] : [chosen] });
    }, path);
  }

  click(id) {
    return this.page.locator(`#${id}`).click({ timeout: PATIENCE });
  }

  fill(id, value) {
    return this.page.locator(`#${id}`).fill(value, { timeout: PATIENCE });
  }

  isEnabled(id) {
    return this.page.locator(`#${id}`).isEnabled();
  }

  /** Resolves with an element's text once it matches. */
  async shows(id, expected, timeout = PATIENCE) {
    const element = this.page.locator(`#${id}`);
    try {
      await element.filter({ hasText: expected }).waitFor({ timeout });
    } catch {
      throw new Error(`#${id} shows ${JSON.stringify(await element.textContent())}; expected ${expected}`);
    }
    return (await element.textContent()) ?? "";
  }

  /** Shows the page at the given width, and saves a screenshot of all of it to `path`, if given. Throws if the page is wider. */
  async showAt(width, path, height = 900) {
    await this.inMain(
      ({ BrowserWindow }, size) => BrowserWindow.getAllWindows()[0].setContentSize(...size),
      [width, height],
    );
    await this.page.waitForFunction((wanted) => window.innerWidth === wanted, width, { timeout: PATIENCE });
    if (path !== undefined) await this.page.screenshot({ path, fullPage: true });
    const wide = await this.page.evaluate(() => document.documentElement.scrollWidth);
    if (wide > width) throw new Error(`the page is ${wide} pixels wide in a window of ${width}`);
  }

  /** Returns the ids of all processes that run the app's executable. */
  processes() {
    return readdirSync("/proc").filter((number) => {
      if (!/^\d+$/.test(number)) return false;
      try {
        return readlinkSync(`/proc/${number}/exe`) === this.#executable;
      } catch {
        return false;
      }
    });
  }

  /** Returns the id of the utility process that trains. */
  trainer() {
    const found = this.processes().filter((number) => {
      try {
        return readFileSync(`/proc/${number}/cmdline`, "utf8").includes(
          "--utility-sub-type=node.mojom.NodeService",
        );
      } catch {
        return false;
      }
    });
    if (found.length !== 1) throw new Error(`${found.length} processes train; expected 1`);
    return Number(found[0]);
  }

  /** Starts the app a second time; resolves to that process's exit. */
  async startAgain() {
    const child = spawn(this.#executable, this.#args, { env: this.#env, stdio: "ignore" });
    const timer = setTimeout(() => child.kill("SIGKILL"), PATIENCE);
    const [status, signal] = await once(child, "exit");
    clearTimeout(timer);
    return signal ?? status;
  }

  /** Sends a signal to the main process. */
  kill(signal) {
    this.#app.process().kill(signal);
  }

  /** Quits as from the app's menu; resolves when the main process has ended. */
  async quit() {
    await this.inMain(({ app }) => void setImmediate(() => app.quit()));
    return this.ended();
  }

  /** Resolves with the exit status or signal of the main process, once all processes have ended. */
  async ended(timeout = PATIENCE) {
    const status = await Promise.race([
      this.#exited,
      sleep(timeout, undefined, { ref: false }).then(() => {
        throw new Error(`the app is still running after ${timeout} ms`);
      }),
    ]);
    for (const deadline = Date.now() + 10_000; this.processes().length > 0; await sleep(20))
      if (Date.now() > deadline) throw new Error(`processes are left: ${this.processes().join(", ")}`);
    return status;
  }

  /** Kills all remaining processes. */
  end() {
    for (const number of this.processes()) process.kill(Number(number), "SIGKILL");
  }
}
