/** A browser without a window, for pages. */
import { chromium, type Browser } from "playwright-core";

/** Chromium, of `LOWRANK_CHROMIUM` or the system's; to be closed. It asks nothing of a network by itself. */
export function launchChromium(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env["LOWRANK_CHROMIUM"] ?? "/usr/bin/chromium",
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
