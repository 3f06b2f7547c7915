// One trial of the packages: installs them in an empty folder, performs the first actions of a user, and reports each action.
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** The actions, in the table's order. */
export const TRIED = ["install", "train", "save", "overwrite", "stop", "resume"];

/** The recipe of a run without options, by command and by library. */
export const WHOLE = {
  steps: 20,
  command: [],
  options: { batchSize: 4, gradientAccumulation: 2, maxLength: 256 },
};

const MODEL = "node_modules/lowrank/models/default";

/** The recipe for emulated processors: few and short rows, and no held-out set. */
export const SHORT = {
  steps: 4,
  command: [
    ...["--model", MODEL, "--data", `${MODEL}/moby-dick.txt`, "--lr", "0.005"],
    ...["--batch-size", "2", "--grad-accum", "2", "--max-length", "64"],
  ],
  options: { batchSize: 2, gradientAccumulation: 2, maxLength: 64 },
};

/**
 * Tries the packages in `folder`, which is recreated. `system` runs commands there and returns their status: `install(log)`,
 * `lowrank(args, log)`, `node(args, log)`; standard output goes to the file `log` and standard error to `log`.err. `expected` are the losses of
 * another platform, which this one's must equal. Returns `{ node, seconds, losses, wrong }`: `wrong` has an error text for each action of `TRIED` that
 * failed, null for each that succeeded, and nothing for those that were not reached.
 */
export function attempt(folder, system, expected, recipe = WHOLE) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }));
  const { steps, command, options } = recipe;
  writeFileSync(join(folder, "recipe.json"), JSON.stringify({ steps, ...options }));
  const finetune = ["finetune", "--steps", String(steps), ...command, "--json", "--output", "out"];
  const seen = { node: undefined, seconds: undefined, losses: undefined, wrong: {} };
  const log = (name) => join(folder, `${name}.log`);

  const succeed = (name, status) => {
    if (status !== 0) throw new Error(`status ${status}: ${written(log(name))}`);
  };
  const lowrank = (name, args) => {
    succeed(name, system.lowrank(args, log(name)));
    return lossesOf(readFileSync(log(name), "utf8"));
  };
  /** Runs an action and returns whether it succeeded; an earlier error is kept. */
  const tried = (name, action) => {
    try {
      action();
      seen.wrong[name] ??= null;
    } catch (error) {
      seen.wrong[name] ??= error.message;
    }
    return seen.wrong[name] === null;
  };

  const installed = tried("install", () => {
    const start = performance.now();
    succeed("install", system.install(log("install")));
    seen.seconds = (performance.now() - start) / 1000;
  });
  if (!installed) return seen;

  tried("train", () => {
    seen.losses = lowrank("train", finetune);
    if (seen.losses.length !== steps)
      throw new Error(`the run reported ${seen.losses.length} of ${steps} steps`);
    same(seen.losses, expected ?? seen.losses, "those of Linux x64");
  });
  let report = { wrong: {}, losses: [] };
  // Each action that is not reached reports this status.
  copyFileSync(fileURLToPath(new URL("trial.mjs", import.meta.url)), join(folder, "trial.mjs"));
  const status = system.node(["trial.mjs", "recipe.json", "report.json"], log("trial"));
  if (existsSync(join(folder, "report.json")))
    report = JSON.parse(readFileSync(join(folder, "report.json"), "utf8"));
  seen.node = report.node?.slice(1);
  for (const name of ["save", "overwrite", "stop"])
    tried(name, () => {
      const wrong = name in report.wrong ? report.wrong[name] : `status ${status}: ${written(log("trial"))}`;
      if (wrong !== null) throw new Error(wrong);
    });
  if (seen.losses === undefined) return seen;
  tried("overwrite", () =>
    same(lowrank("overwrite", [...finetune, "--yes"]), seen.losses, "the first run's"),
  );
  if (seen.wrong.stop !== null) return seen;
  tried("resume", () => {
    const rest = lowrank("resume", ["finetune", "--resume", "stopped", "--json"]);
    same([...report.losses, ...rest], seen.losses, "an unbroken run's");
  });
  return seen;
}

/** Steps and losses, from the JSON events of a run. */
function lossesOf(text) {
  const events = text
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line));
  return events.filter(({ type }) => type === "step").map(({ step, loss }) => [step, loss]);
}

/** Throws if two runs' losses differ in a bit. */
function same(losses, others, whose) {
  const at = others.findIndex((other, i) => JSON.stringify(other) !== JSON.stringify(losses[i]));
  if (losses.length > others.length)
    throw new Error(`${losses.length} losses, and ${whose} are ${others.length}`);
  if (at === -1) return;
  const [step, loss] = losses[at] ?? ["none", "none"];
  throw new Error(
    `losses are not ${whose}: ${loss} at step ${step}, and ${others[at][1]} at step ${others[at][0]}`,
  );
}

/** The end of a command's output, on one line. */
function written(log) {
  const texts = [log, `${log}.err`]
    .filter((path) => existsSync(path))
    .map((path) => readFileSync(path, "utf8"));
  const lines = texts
    .join("\n")
    .split("\n")
    .filter((line) => line.trim() !== "");
  return lines.slice(-6).join(" / ").slice(-600) || "nothing was written";
}
