// Measures how smooth an Electron page is during a run: frames per second and the 99th percentile of the time between
// frames, without a run and during one with each setting of `threads` and `priority`.
//   node benches/electron-frames.mjs [--seconds 20] [--repetitions 5] [--electron PATH] [--json FILE]
// needs `npm run build`, `npm run build:native` and Linux x64. Electron is the copy of `npm run test:electron`, downloaded
// once. The conditions alternate, so that other load affects all of them equally; the results are medians over repetitions.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, homedir, tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

import { electron } from "../scripts/electron/electron.mjs";
import { prepareSystem, startDisplay } from "../scripts/electron/system.mjs";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "20" },
    repetitions: { type: "string", default: "5" },
    electron: { type: "string" },
    json: { type: "string" },
  },
});

const cores = availableParallelism();
const CONDITIONS = [
  { name: "no run", options: null },
  { name: `priority normal, ${cores} threads`, options: { priority: "normal" } },
  {
    name: `priority normal, ${Math.max(1, cores - 1)} of ${cores} threads`,
    options: { priority: "normal", threads: Math.max(1, cores - 1) },
  },
  { name: "priority background", options: { priority: "background" } },
];

const { env } = process;
const cache = resolve(
  env.LOWRANK_ELECTRON ?? join(env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "lowrank-electron"),
);
mkdirSync(cache, { recursive: true });
prepareSystem();
const executable = values.electron ?? electron(cache);
const work = mkdtempSync(join(tmpdir(), "lowrank-frames-"));
const screen = await startDisplay();
const all = [];
try {
  // This copy of Electron has no default app, so one must be given.
  const app = join(work, "app");
  const copied = spawnSync("cp", ["-al", dirname(executable), app]);
  if (copied.status !== 0) cpSync(dirname(executable), app, { recursive: true });
  const resources = join(app, "resources", "app");
  cpSync(fileURLToPath(new URL("electron-frames", import.meta.url)), resources, { recursive: true });
  writeFileSync(join(resources, "package.json"), JSON.stringify({ name: "frames", main: "main.cjs" }));
  const child = spawn(
    join(app, basename(executable)),
    ["--no-sandbox", `--user-data-dir=${join(work, "user")}`],
    {
      stdio: ["ignore", "pipe", "inherit"],
      env: {
        ...env,
        DISPLAY: screen.display,
        NODE_OPTIONS: "",
        LOWRANK_ELECTRON_ENTRY: pathToFileURL(resolve("dist/electron/index.js")).href,
        LOWRANK_FRAMES: JSON.stringify({
          conditions: CONDITIONS,
          repetitions: Number(values.repetitions),
          seconds: Number(values.seconds),
          run: {
            model: fileURLToPath(new URL("../models/default", import.meta.url)),
            data: fileURLToPath(new URL("../models/default/moby-dick.txt", import.meta.url)),
            device: "cpu",
            output: join(work, "out"),
            steps: 1_000_000,
            saveEvery: "never",
          },
        }),
      },
    },
  );
  const ended = once(child, "exit");
  for await (const line of createInterface({ input: child.stdout })) {
    if (!line.startsWith("{")) continue;
    const measured = JSON.parse(line);
    all.push(measured);
    const { fps, p99, most } = figuresOf(measured);
    console.error(
      `${measured.name}: ${fps.toFixed(1)} frames/s, p99 ${p99.toFixed(1)} ms, most ${most.toFixed(0)} ms`,
    );
  }
  const [status] = await ended;
  if (status !== 0) throw new Error(`Electron ended with status ${String(status)}`);
} finally {
  screen.end();
  rmSync(work, { recursive: true, force: true });
}
if (values.json !== undefined) writeFileSync(values.json, JSON.stringify(all));

console.log("| | frames/s | p99 | longest | main process, p99 | steps/s |");
console.log("| --- | --- | --- | --- | --- | --- |");
for (const { name } of CONDITIONS) {
  const own = all.filter((one) => one.name === name);
  const figures = own.map(figuresOf);
  const cells = [
    median(figures.map(({ fps }) => fps)).toFixed(1),
    `${median(figures.map(({ p99 }) => p99)).toFixed(1)} ms`,
    `${median(figures.map(({ most }) => most)).toFixed(0)} ms`,
    `${median(own.map(({ loop }) => loop.p99)).toFixed(1)} ms`,
    own[0]?.stepsPerSecond === undefined ? "" : median(own.map((one) => one.stepsPerSecond ?? 0)).toFixed(1),
  ];
  console.log(`| ${name} | ${cells.join(" | ")} |`);
}

function figuresOf({ intervals }) {
  const sorted = intervals.toSorted((a, b) => a - b);
  const total = sorted.reduce((sum, one) => sum + one, 0);
  return {
    fps: (1000 * sorted.length) / total,
    p99: sorted[Math.ceil(0.99 * sorted.length) - 1] ?? NaN,
    most: sorted.at(-1) ?? NaN,
  };
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length / 2;
  return sorted.length % 2 === 1 ? sorted[Math.floor(half)] : (sorted[half - 1] + sorted[half]) / 2;
}
