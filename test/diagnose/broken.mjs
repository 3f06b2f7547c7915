/**
 * Loaded in front of a process: a GPU whose operations go wrong, as `BROKEN` says, such as `softmax=wrong,flip=crash`.
 * `BROKEN_HARDWARE=1` has the GPU in software pass for one in hardware. `BROKEN_COUNT` names a file that each process of a
 * test leaves a line in.
 */
import { appendFileSync } from "node:fs";
import { createRequire } from "node:module";

const binding = createRequire(import.meta.url)("../../native/binding.cjs");
const { prototype } = binding.Session;
const { flip } = prototype;

/** The device of a handle is the second number that describes it. */
function isOnGpu(session, id) {
  return session.deviceLabels()[session.describe(id)[1]]?.startsWith("gpu") === true;
}

const WAYS = {
  // Right numbers in another place: those of the last dimension are turned around.
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
