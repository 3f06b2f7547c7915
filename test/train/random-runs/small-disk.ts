/** A separate small file system that can be filled: on Linux, as root. */
import { execFileSync } from "node:child_process";
import { appendFileSync, mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export class SmallDisk {
  readonly #folder: string;
  readonly #ballast: string;

  constructor(folder: string) {
    this.#folder = folder;
    this.#ballast = join(folder, "ballast");
    mkdirSync(folder, { recursive: true });
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=2m", "none", folder]);
  }

  /** Fills the disk except for a number of pages. */
  fill(pages: number): void {
    writeFileSync(this.#ballast, "");
    const page = Buffer.alloc(4096);
    try {
      for (;;) appendFileSync(this.#ballast, page);
    } catch {
      // It is full.
    }
    const size = Math.max(0, statSync(this.#ballast).size - 4096 * pages);
    execFileSync("truncate", ["-s", String(size), this.#ballast]);
  }

  empty(): void {
    rmSync(this.#ballast);
  }

  unmount(): void {
    execFileSync("umount", [this.#folder]);
  }
}
