// The files of examples/cluster, run literally. Slurm's commands are replaced by the launcher.
import assert from "node:assert/strict";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { runJob, startJob } from "../job.mjs";

const EXAMPLE = new URL("../../examples/cluster/", import.meta.url);

/** Copies the example into a project, with the model that it names. */
export function installExample(folder) {
  for (const name of readdirSync(EXAMPLE).filter((one) => /\.(sh|js|yaml)$/.test(one)))
    cpSync(new URL(name, EXAMPLE), join(folder, name));
  cpSync(join(folder, "node_modules", "lowrank", "models", "default"), join(folder, "SmolLM2-135M"), {
    recursive: true,
  });
}

/** Returns the checks of a launcher by their titles, as in checks.mjs. */
export function listExampleChecks({ forwardsUsr2 }) {
  return forwardsUsr2 ? { ...EXAMPLE_CHECKS, ...SIGNAL_CHECKS } : EXAMPLE_CHECKS;
}

const EXAMPLE_CHECKS = {
  "one-machine.sh trains, and prints its ranks": async ({ folder, launcher }) => {
    remove(folder);
    const { stdout } = await runJob("./one-machine.sh", [], { folder, env: launcher.env });
    assert.match(stdout, /^ {2}ranks {6}0: process \d+ on \S+, .*, 4 rows of each step$/m);
    assert.match(stdout, /^ {13}1: process \d+ on \S+, .*, 4 rows of each step$/m);
    assert.match(stdout, /^adapter out$/m);
  },

  "train.js trains by connect()": async ({ folder, launcher }) => {
    remove(folder);
    const { stdout } = await runJob("mpirun", ["-n", "2", "node", "train.js"], { folder, env: launcher.env });
    assert.match(stdout, /^1 \d\.\d+$/m);
    assert.match(stdout, /^out$/m);
  },

  "the command of mpijob.yaml starts a run, and continues it": async ({ folder, launcher }) => {
    const { spec } = parse(readFileSync(join(folder, "mpijob.yaml"), "utf8"));
    const [{ command, args }] = spec.mpiReplicaSpecs.Launcher.template.spec.containers;
    const [program, ...more] = [...command, ...args.map((text) => placeIn(text, folder))];
    remove(folder);
    const first = await runJob(program, more, { folder, env: launcher.env });
    assert.match(first.stdout, /^ {13}1: process \d+/m);
    rmSync(join(folder, "out", "checkpoint-8"), { recursive: true });
    // No checkpoint: the run starts again.
    const again = await runJob(program, more, { folder, env: launcher.env });
    assert.doesNotMatch(again.stdout, /resumed/);
    const second = await runJob(program, more, { folder, env: launcher.env });
    assert.match(second.stdout, /^ {2}resumed {4}from step 8$/m);
  },
};

const SIGNAL_CHECKS = {
  "slurm.sh saves at SIGUSR2, queues itself again, and continues": async ({ folder, launcher }) => {
    remove(folder);
    const env = { ...launcher.env, ...replaceSlurm(folder, launcher) };
    writeFileSync(join(folder, "short.jsonl"), readFileSync(join(folder, "rows.jsonl")));
    writeFileSync(join(folder, "rows.jsonl"), readFileSync(join(folder, "short.jsonl"), "utf8").repeat(8));
    const first = startJob("./slurm.sh", [], { folder, env });
    const sent = setInterval(() => {
      // Not by its output, which a launcher may forward late.
      if (!hasSteps(join(folder, "out", "events.jsonl"))) return;
      clearInterval(sent);
      process.kill(Number(readFileSync(join(folder, "step.pid"), "utf8")), "SIGUSR2");
    }, 50);
    const stopped = await first.ended.finally(() => clearInterval(sent));
    assert.equal(stopped.status, 140, stopped.stderr);
    assert.match(stopped.stdout, /^queued again: requeue 7$/m);
    assert.match(stopped.stderr, /stopped after step \d+; resume with/);
    const { stdout } = await runJob("./slurm.sh", [], { folder, env });
    assert.match(stdout, /^ {2}resumed {4}from step \d+$/m);
    assert.match(stdout, /^done at step 64 /m);
    writeFileSync(join(folder, "rows.jsonl"), readFileSync(join(folder, "short.jsonl")));
  },
};

/** Returns the text with the paths of the image and of the volume replaced by the project's. */
function placeIn(text, folder) {
  return text.replaceAll("/opt/lowrank", folder).replaceAll("/data", folder);
}

/** Makes an `srun` that starts two ranks by `mpirun`, and a `scontrol` that prints; returns Slurm's variables. */
function replaceSlurm(folder, launcher) {
  const bin = join(folder, "slurm");
  mkdirSync(bin, { recursive: true });
  const srun = `while case "$1" in -*) true;; *) false;; esac; do shift; done
echo $$ > step.pid
exec mpirun -n 2 "$@"`;
  for (const [name, lines] of Object.entries({ srun, scontrol: 'echo "queued again: $@"' })) {
    writeFileSync(join(bin, name), `#!/bin/sh\n${lines}\n`);
    chmodSync(join(bin, name), 0o755);
  }
  return { PATH: `${bin}:${launcher.env.PATH}`, SLURM_JOB_ID: "7", SLURM_CPUS_PER_TASK: "1" };
}

function hasSteps(file) {
  return existsSync(file) && readFileSync(file, "utf8").includes('"type":"step"');
}

function remove(folder) {
  rmSync(join(folder, "out"), { recursive: true, force: true });
}
