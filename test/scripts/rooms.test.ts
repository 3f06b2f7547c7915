/** Imports go one way, in the library and in the crates: there are no cycles between modules. */
import { readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";

/** For each module, the modules that it imports, and a file that does. */
type Graph = Map<string, Map<string, string>>;

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Returns the files of a folder with an extension, by their paths in it. */
function filesOf(folder: string, extension: string): string[] {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" });
  return names.filter((name) => name.endsWith(extension)).map((name) => name.replaceAll(sep, "/"));
}

function add(rooms: Graph, [from, to]: readonly [string, string], file: string): void {
  if (from !== to) rooms.set(from, (rooms.get(from) ?? new Map<string, string>()).set(to, file));
}

/** Returns every cycle, with the file of its last step. */
function circles(rooms: Graph): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const visit = (room: string, way: readonly string[]): void => {
    if (way.includes(room)) {
      const file = rooms.get(way.at(-1) as string)?.get(room) ?? "";
      found.push(`${[...way.slice(way.indexOf(room)), room].join(" → ")} (${file})`);
      return;
    }
    if (done.has(room)) return;
    for (const next of rooms.get(room)?.keys() ?? []) visit(next, [...way, room]);
    done.add(room);
  };
  for (const room of rooms.keys()) visit(room, []);
  return found;
}

/** Returns the folder of a file of src/, or the file if it is in none. */
function roomOf(path: string): string {
  return path.includes("/") ? dirname(path) : path;
}

/** Returns the graph of the library's folders, in which type imports count as well. */
function library(): Graph {
  const src = join(root, "src");
  const rooms: Graph = new Map();
  for (const file of filesOf(src, ".ts")) {
    const text = readFileSync(join(src, file), "utf8");
    for (const [, specifier] of text.matchAll(/(?:from |import\()"(\.[^"]+)"/g)) {
      const target = relative(src, join(src, dirname(file), specifier as string)).replaceAll(sep, "/");
      if (!target.startsWith("..")) add(rooms, [roomOf(file), roomOf(target.replace(/\.js$/, ".ts"))], file);
    }
  }
  return rooms;
}

/** Returns the library's files with the files that they evaluate first, by static imports of values. */
function evaluated(): Graph {
  const src = join(root, "src");
  const files: Graph = new Map();
  const imports = /^(?:import|export) (?!type )(?:([^;"]*?) from )?"(\.[^"]+)";/gm;
  for (const file of filesOf(src, ".ts")) {
    const text = readFileSync(join(src, file), "utf8");
    for (const [, names = "", specifier] of text.matchAll(imports)) {
      const each = /^\{([^}]*)\}$/.exec(names.trim())?.[1]?.split(",") ?? [];
      if (each.length > 0 && each.every((name) => /^\s*(?:type |$)/.test(name))) continue;
      const target = relative(src, join(src, dirname(file), specifier as string)).replaceAll(sep, "/");
      if (!target.startsWith("..")) add(files, [file, target.replace(/\.js$/, ".ts")], file);
    }
  }
  return files;
}

/** Returns the module of a file of a crate: the top one, and for kernels and operations the family's. */
function moduleOf(path: readonly string[]): string {
  const [first = "", second] = path;
  return (first === "kernels" || first === "ops") && second !== undefined ? `${first}/${second}` : first;
}

const FOR_TESTS = String.raw`([ \t]*)#\[cfg\((?:test\b|all\(test\b)[^\n]*\]\n(?:\1#\[[^\n]*\]\n)*`;

/** Returns a crate's graph. Code that is compiled only for tests is exempt. */
function crate(name: string): Graph {
  const src = join(root, "crates", name, "src");
  const files = filesOf(src, ".rs");
  const texts = new Map(files.map((file) => [file, readFileSync(join(src, file), "utf8")]));
  const tests: string[] = [];
  for (const [file, text] of texts) {
    const folder = /^(?:mod|lib)\.rs$/.test(basename(file)) ? dirname(file) : file.replace(/\.rs$/, "");
    for (const [, , module] of text.matchAll(
      new RegExp(`${FOR_TESTS}\\1(?:pub(?:\\([a-z]+\\))? )?mod (\\w+);`, "gm"),
    ))
      tests.push(join(folder, module as string).replaceAll(sep, "/"));
  }
  const rooms: Graph = new Map();
  for (const [file, text] of texts) {
    if (tests.some((module) => file === `${module}.rs` || file.startsWith(`${module}/`))) continue;
    const used = text
      .replaceAll(/\/\/[^\n]*|\bpub\(in [^)]*\)/g, "")
      .replaceAll(
        new RegExp(String.raw`${FOR_TESTS}(?:\1[^\n]*;\n|\1[^\n]*\{\n[\s\S]*?\n\1\}[^\n]*\n)`, "gm"),
        "",
      );
    const from = moduleOf(file.replace(/(?:\/mod)?\.rs$/, "").split("/"));
    for (const [, path] of used.matchAll(/\bcrate::((?:r#)?[a-z_0-9]+(?:::(?:r#)?[a-z_0-9]+)?)/g))
      add(rooms, [from, moduleOf((path as string).replaceAll("r#", "").split("::"))], file);
  }
  return rooms;
}

for (const { of, rooms, least } of [
  { of: "src/", rooms: library(), least: 40 },
  { of: "the engine", rooms: crate("engine"), least: 80 },
  { of: "the binding", rooms: crate("node"), least: 15 },
  { of: "the CPU's kernels", rooms: crate("cpu"), least: 4 },
])
  test(`no module of ${of} imports one that imports it`, (t) => {
    t.true(rooms.size >= least, `${rooms.size} rooms`);
    t.deepEqual(circles(rooms), []);
  });

test("every file of src/ is in a folder, but for its entry and the errors", (t) => {
  const entries = readdirSync(join(root, "src"), { withFileTypes: true });
  t.deepEqual(
    entries
      .filter((entry) => entry.isFile())
      .map(({ name }) => name)
      .sort(),
    ["errors.ts", "index.ts"],
  );
});

test("no file of src/ imports values of one that imports its own", (t) => {
  const files = evaluated();
  t.true(files.size >= 250, `${files.size} files`);
  t.deepEqual(circles(files), []);
});

test("the start of the command line evaluates neither tensors nor models", (t) => {
  const files = evaluated();
  /** The file that first imported each file. */
  const importers = new Map([["cli/main.ts", ""]]);
  for (const [file] of importers)
    for (const next of files.get(file)?.keys() ?? []) if (!importers.has(next)) importers.set(next, file);
  t.true(importers.size >= 100, `${importers.size} files`);
  const library = /^(?:tensor|nn|optim|lora\/(?:layers|inject)|models\/pretrained|train\/settings)\b/;
  const heavy = [...importers].filter(([file]) => library.test(file));
  t.deepEqual(
    heavy.map(([file, by]) => `${by} imports ${file}`),
    [],
  );
});
