/** A page of an Electron app in Chromium: its preload script with the two modules that it requires, and its port. */
import { readFileSync } from "node:fs";

import type { Browser, Page } from "playwright-core";

import type { PagePort } from "./hosts.js";

/** The requests of the page to the main process. */
export interface MainEnd {
  /** `ipcRenderer.send`. */
  send(channel: string): void;
  /** `ipcRenderer.invoke`. */
  invoke(channel: string, args: unknown[]): unknown;
}

/**
 * Chromium has no custom scheme for the app: its page is loaded from this origin, and its files from the app's
 * handler.
 */
const ORIGIN = "http://app.test";

/** The counterpart of this module in the page: `require("electron")` of a sandboxed preload script. */
const EMULATED = `
  const listeners = new Map();
  const ports = new Map();
  globalThis.emulated = {
    /** Receives a transferred port: the page's end goes to the preload script. */
    hand(channel, number) {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = ({ data }) => emulatedPost(number, data);
      ports.set(number, port1);
      listeners.get(channel)?.({ ports: [port2] });
    },
    take: (number, data) => ports.get(number)?.postMessage(data),
    tell: (channel) => listeners.get(channel)?.({ ports: [] }),
  };
  const require = (name) => {
    if (name !== "electron") throw new Error("a sandboxed preload script cannot require " + name);
    return {
      contextBridge: { exposeInMainWorld: (key, value) => (globalThis[key] = Object.freeze(value)) },
      ipcRenderer: {
        on: (channel, listener) => listeners.set(channel, listener),
        send: (channel) => emulatedSend(channel),
        invoke: (channel, ...args) => emulatedInvoke(channel, args),
      },
    };
  };
`;

interface InPage {
  emulated: {
    hand(channel: string, number: number): void;
    take(number: number, data: unknown): void;
    tell(channel: string): void;
  };
}

export class AppPage {
  readonly page: Page;
  /** Errors of the page, and its requests to the network. */
  readonly wrong: string[] = [];
  readonly #ports = new Map<number, PagePort>();

  private constructor(page: Page) {
    this.page = page;
    page.on("pageerror", (error) => this.wrong.push(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error") this.wrong.push(message.text());
    });
    page.on("request", (request) => {
      if (!request.url().startsWith(`${ORIGIN}/`)) this.wrong.push(request.url());
    });
  }

  /** Opens a page in which the preload script runs first. */
  static async open(browser: Browser, preload: string, main: MainEnd): Promise<AppPage> {
    const page = await browser.newPage({ viewport: { width: 1100, height: 1300 } });
    const made = new AppPage(page);
    await page.exposeFunction("emulatedSend", (channel: string) => main.send(channel));
    await page.exposeFunction("emulatedInvoke", (channel: string, args: unknown[]) =>
      main.invoke(channel, args),
    );
    await page.exposeFunction("emulatedPost", (number: number, data: unknown) =>
      made.#ports.get(number)?.postMessage(data),
    );
    await page.addInitScript({ content: `(() => {${EMULATED}\n${readFileSync(preload, "utf8")}\n})();` });
    return made;
  }

  /** Loads a page of the scheme that `handler` serves. */
  async load(url: string, handler: (request: { url: string }) => Promise<Response>): Promise<void> {
    const { protocol, host, pathname } = new URL(url);
    await this.page.route(`${ORIGIN}/**`, async (route) => {
      const asked = route.request().url().replace(ORIGIN, `${protocol}//${host}`);
      const response = await handler({ url: asked });
      const { status, headers } = response;
      await route.fulfill({ status, headers: Object.fromEntries(headers), body: await response.text() });
    });
    await this.page.goto(`${ORIGIN}${pathname}`);
  }

  /** `webContents.postMessage` with a port. Messages reach the page one at a time. */
  hand(channel: string, port: PagePort): void {
    const number = this.#ports.size + 1;
    this.#ports.set(number, port);
    void this.page.evaluate(([to, n]) => (globalThis as unknown as InPage).emulated.hand(to, n), [
      channel,
      number,
    ] as const);
    port.addEventListener("message", (event) => {
      const { data } = event as Event & { data: unknown };
      void this.page
        .evaluate(([n, value]) => (globalThis as unknown as InPage).emulated.take(n, value), [
          number,
          data,
        ] as const)
        .catch(() => {});
    });
    // Chromium does not notify a page when the other end of a port is closed.
    port.start();
  }

  /** `webContents.send`. */
  tell(channel: string): void {
    void this.page
      .evaluate((to) => (globalThis as unknown as InPage).emulated.tell(to), channel)
      .catch(() => {});
  }

  /** Resolves with an element's text as soon as it matches. */
  async shows(id: string, expected: RegExp): Promise<string> {
    const element = this.page.locator(`#${id}`);
    await element.filter({ hasText: expected }).waitFor({ timeout: 60_000 });
    return (await element.textContent()) ?? "";
  }

  click(id: string): Promise<void> {
    return this.page.locator(`#${id}`).click();
  }

  fill(id: string, value: string): Promise<void> {
    return this.page.locator(`#${id}`).fill(value);
  }
}
