/** A browser without a window, for pages. */
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";

import { chromium, type Browser } from "playwright-core";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];

/** Throws where there is none: what it would have tested is not left out in silence. */
function executable(): string {
  const folders = ["/usr/bin", ...(process.env["PATH"] ?? "").split(delimiter)];
  const places = folders.flatMap((folder) => NAMES.map((name) => join(folder, name)));
  const found = process.env["LOWRANK_CHROMIUM"] ?? places.find((path) => existsSync(path));
  if (found !== undefined) return found;
  throw new Error("no Chromium: install it (apt-get install chromium), or name one by LOWRANK_CHROMIUM");
}

/** Chromium, of `LOWRANK_CHROMIUM` or the system's; to be closed. It asks nothing of a network by itself. */
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
