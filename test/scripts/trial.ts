/** The trial of the packages on other platforms, run on this one. */
import { spawnSync } from "node:child_process";
import { closeSync, openSync, symlinkSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { SHORT, type System, TRIED, attempt } from "../../scripts/platforms/attempt.mjs";
import { failed } from "../../scripts/platforms/table.mjs";
import { temporary } from "../hashed.js";
import { installedProject } from "../packed.js";

/** Returns this machine's Node, in a folder that has the packed package. */
function here(folder: string): System {
  const node = (args: string[], log: string): number => {
    const [out, wrong] = [openSync(log, "w"), openSync(`${log}.err`, "w")];
    const env = { ...process.env, NODE_OPTIONS: "" };
    const { status } = spawnSync(process.execPath, args, { cwd: folder, stdio: ["ignore", out, wrong], env });
    closeSync(out);
    closeSync(wrong);
    return status ?? 1;
  };
  return {
    install: () => {
      symlinkSync(join(installedProject(), "node_modules"), join(folder, "node_modules"), "junction");
      return 0;
    },
    lowrank: (args, log) => node([join("node_modules", "lowrank", "dist", "cli", "main.js"), ...args], log),
    node,
  };
}

test("on this machine the packed package passes the trial", (t) => {
  const folder = join(temporary(), "trial");
  const seen = attempt(folder, here(folder), undefined, SHORT);
  t.deepEqual(seen.wrong, Object.fromEntries(TRIED.map((name) => [name, null])));
  t.is(seen.losses?.length, SHORT.steps);
  t.is(seen.node, process.versions.node);
  t.false(failed({ platform: "this", packed: 0, unpacked: 0, ...seen }));
});
