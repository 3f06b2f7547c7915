// Packages an example as an app: its files, this tree's package and its dependencies in resources/app.asar, next to an
// executable not called `electron`. The example's electron-builder configuration selects the packed and unpacked files.
import { cpSync, linkSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { createPackageWithOptions } from "@electron/asar";
import { build } from "esbuild";

const root = fileURLToPath(new URL("../..", import.meta.url));
const json = (path) => JSON.parse(readFileSync(path, "utf8"));

/** Packages the example `name` with the packages in `installed`; returns the path of the app's executable. */
export async function packageApp(name, installed, electron, work) {
  const example = join(root, "examples", name);
  const {
    productName,
    files,
    asarUnpack,
    extraResources = [],
  } = json(join(example, "electron-builder.json"));
  const source = join(work, `${name}-source`);
  cpSync(example, source, { recursive: true });
  cpSync(join(installed, "node_modules"), join(source, "node_modules"), { recursive: true });
  await bundlePage(source);
  keepOnly(source, [...files, "package.json", "node_modules"], join(work, `${name}-packed`));

  const app = join(work, name);
  const resources = join(app, "resources");
  mkdirSync(resources, { recursive: true });
  await createPackageWithOptions(join(work, `${name}-packed`), join(resources, "app.asar"), {
    unpack: `{${asarUnpack.join(",")}}`,
  });
  for (const { from, to } of extraResources) cpSync(join(example, from), join(resources, to));
  const executable = join(app, productName.replaceAll(" ", "-"));
  linkElectron(dirname(electron), app);
  place(electron, executable);
  return executable;
}

/** Bundles the page with the script `bundle` of its package.json. */
async function bundlePage(folder) {
  const { bundle } = json(join(folder, "package.json")).scripts;
  const [, format] = /--format=(\w+)/.exec(bundle);
  await build({
    entryPoints: [join(folder, "page.js")],
    bundle: true,
    format,
    outfile: join(folder, "page.bundle.js"),
    absWorkingDir: folder,
    logLevel: "silent",
  });
}

function keepOnly(source, names, to) {
  mkdirSync(to);
  for (const name of names) cpSync(join(source, name), join(to, name), { recursive: true });
}

/** Links Electron's files, without its executable. */
function linkElectron(from, to) {
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    if (entry.name === "electron") continue;
    if (!entry.isDirectory()) place(join(from, entry.name), join(to, entry.name));
    else {
      mkdirSync(join(to, entry.name), { recursive: true });
      linkElectron(join(from, entry.name), join(to, entry.name));
    }
  }
}

/** Makes a hard link to a file, or a copy on another file system. */
function place(from, to) {
  try {
    linkSync(from, to);
  } catch {
    cpSync(from, to);
  }
}
