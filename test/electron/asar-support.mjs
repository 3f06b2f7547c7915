/* oxlint-disable no-underscore-dangle -- names of Node's own */
// Emulates Electron's support for archives, loaded by --import. JavaScript reads the content of the archive
// $LOWRANK_ASAR, by require, import and fs, from an extracted view; native code sees a plain file.
// `process.noAsar` disables this. process.dlopen loads the files that the archive's index lists as unpacked, and
// refuses any others, which Electron would load from a copy. The path of each is appended to $LOWRANK_DLOPENED.
import { getRawHeader, extractAll } from "@electron/asar";
import fs from "node:fs";
import Module, { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join, normalize, sep } from "node:path";
import { fileURLToPath } from "node:url";

const archive = process.env.LOWRANK_ASAR;
const view = fs.realpathSync(fs.mkdtempSync(join(tmpdir(), "lowrank-test-view-")));
const { rmSync, appendFileSync } = fs;
process.on("exit", () => rmSync(view, { recursive: true, force: true }));
const { header } = getRawHeader(archive);
extractAll(archive, view);

const moved = (path, from, to) =>
  path === from ? to : path.startsWith(from + sep) ? to + path.slice(from.length) : path;

/** Returns the path in the view from which JavaScript reads `path`. */
function inView(path) {
  if (process.noAsar === true) return path;
  const text = path instanceof URL ? fileURLToPath(path) : path;
  return typeof text === "string" && text.includes(".asar") ? moved(normalize(text), archive, view) : path;
}

const inArchive = (path) => (typeof path === "string" ? moved(path, view, archive) : path);

const READERS = ["access", "exists", "stat", "lstat", "open", "readFile", "readdir", "realpath", "copyFile"];
const asItIs = (value) => value;

/** Wraps a call so that its first argument is in the view, and `back` transforms its result. */
function wrapped(call, back) {
  const made = function (path, ...rest) {
    const last = rest.at(-1);
    if (typeof last === "function") rest[rest.length - 1] = (error, value) => last(error, back(value));
    const value = call.call(this, inView(path), ...rest);
    return value instanceof Promise ? value.then(back) : back(value);
  };
  return Object.assign(made, call);
}

for (const name of READERS) {
  const back = name === "realpath" ? inArchive : asItIs;
  for (const [place, key] of [
    [fs, name],
    [fs, `${name}Sync`],
    [fs.promises, name],
  ])
    if (place[key] !== undefined) place[key] = wrapped(place[key], back);
}

const { dlopen } = process;
process.dlopen = function (module, path, ...rest) {
  const inside = moved(path, archive, "");
  if (inside === path || process.noAsar === true) return dlopen.call(this, module, path, ...rest);
  let entry = header;
  for (const part of inside.split(sep).filter(Boolean)) entry = entry?.files?.[part];
  if (entry?.unpacked !== true) throw new Error(`${path}: is not unpacked`);
  const beside = `${archive}.unpacked${inside}`;
  appendFileSync(process.env.LOWRANK_DLOPENED, `${beside}\n`);
  return dlopen.call(this, module, beside, ...rest);
};

const { _resolveFilename } = Module;
Module._resolveFilename = function (request, parent, ...rest) {
  const from =
    parent?.filename === undefined || parent.filename === null ? undefined : inView(parent.filename);
  if (from === parent?.filename && inView(request) === request)
    return _resolveFilename.call(this, request, parent, ...rest);
  const paths = Module._nodeModulePaths(join(from ?? view, ".."));
  return inArchive(
    _resolveFilename.call(this, inView(request), { ...parent, filename: from, paths }, ...rest),
  );
};

syncBuiltinESMExports();
Module.register("./asar-hooks.mjs", import.meta.url, { data: { archive, view } });
