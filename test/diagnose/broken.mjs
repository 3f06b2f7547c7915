/**
 * Loaded before a program: a GPU whose operations fail as `BROKEN` says, such as `softmax=wrong,flip=crash`.
 * `BROKEN_HARDWARE=1` makes the software GPU count as hardware. Each test process appends a line to the file that
 * `BROKEN_COUNT` names.
 */
import { appendFileSync } from "node:fs";
import { createRequire } from "node:module";

const binding = createRequire(import.meta.url)("../../native/binding.cjs");
const { prototype } = binding.Session;
const { flip } = prototype;

/** The device of a handle is the second number of its description. */
function isOnGpu(session, id) {
  return session.deviceLabels()[session.describe(id)[1]]?.startsWith("gpu") === true;
}

const WAYS = {
  // Correct values in the wrong position: the last dimension is reversed.
  wrong: (session, made) => {
    const rank = session.describe(made)[2];
    return flip.call(session, made, [rank - 1]);
  },
  crash: () => process.kill(process.pid, "SIGSEGV"),
  interrupt: () => process.kill(process.pid, "SIGINT"),
  hang: () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0),
  throw: () => {
    throw Object.assign(new Error("the GPU was lost: on purpose"), { code: "ERR_DEVICE_LOST" });
  },
};

for (const entry of (process.env.BROKEN ?? "").split(",").filter((one) => one !== "")) {
  const [name, way] = entry.split("=");
  const whole = prototype[name];
  prototype[name] = function (x, ...others) {
    const made = whole.call(this, x, ...others);
    return isOnGpu(this, x) ? (WAYS[way](this, made) ?? made) : made;
  };
}

if (process.env.BROKEN_HARDWARE === "1") {
  const { devices } = binding;
  binding.devices = () =>
    devices().map((one) => (one.kind === "software" ? { ...one, kind: "discrete" } : one));
}

if (process.env.BROKEN_COUNT !== undefined && process.argv[1]?.includes("diagnose"))
  appendFileSync(process.env.BROKEN_COUNT, "run\n");
