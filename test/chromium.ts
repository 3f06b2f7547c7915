/** A headless browser for tests of pages. */
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";

import { chromium, type Browser } from "playwright-core";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];

/** Returns the path of the browser. Throws if there is none, so that no test is skipped silently. */
function executable(): string {
  const folders = ["/usr/bin", ...(process.env["PATH"] ?? "").split(delimiter)];
  const places = folders.flatMap((folder) => NAMES.map((name) => join(folder, name)));
  const found = process.env["LOWRANK_CHROMIUM"] ?? places.find((path) => existsSync(path));
  if (found !== undefined) return found;
  throw new Error("no Chromium: install it (apt-get install chromium), or name one by LOWRANK_CHROMIUM");
}

/**
 * Starts Chromium, from `LOWRANK_CHROMIUM` or the system; the caller closes it. It makes no network requests of its
 * own accord.
 */
export function launchChromium(): Promise<Browser> {
  return chromium.launch({
    executablePath: executable(),
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}
