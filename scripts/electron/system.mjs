// Electron's requirements on Linux: libraries, and a display.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { answer, must } from "../platforms/command.mjs";

/** Debian's packages by the program or library that they provide; a second name is Ubuntu's since 24.04. */
const PROGRAMS = { Xvfb: ["xvfb"], unzip: ["unzip"] };
const LIBRARIES = {
  "libgtk-3.so.0": ["libgtk-3-0", "libgtk-3-0t64"],
  "libnss3.so": ["libnss3"],
  "libasound.so.2": ["libasound2", "libasound2t64"],
  "libgbm.so.1": ["libgbm1"],
  "libXss.so.1": ["libxss1"],
};

/** Installs missing packages with apt. Throws with their names if that is not possible. */
export function prepareSystem() {
  const found = answer("/sbin/ldconfig", ["-p"]) ?? "";
  const missing = [
    ...Object.entries(PROGRAMS).filter(([name]) => answer("which", [name]) === undefined),
    ...Object.entries(LIBRARIES).filter(([name]) => !found.includes(`${name} `)),
  ];
  if (missing.length === 0) return;
  const names = missing.map(([, [name]]) => name).join(" ");
  if (process.getuid() !== 0 || answer("which", ["apt-get"]) === undefined)
    throw new Error(`install these packages first: ${names}`);
  must("apt-get", ["update", "-q"]);
  const wanted = missing.map(([, candidates]) => candidates.find(isInstallable) ?? candidates[0]);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  must("apt-get", ["install", "-y", "-q", "--no-install-recommends", ...wanted], { env });
}

function isInstallable(name) {
  return /Candidate: \d/.test(answer("apt-cache", ["policy", name]) ?? "");
}

/** Starts a virtual display; returns its name for `DISPLAY`, and a function that stops it. */
export async function startDisplay() {
  const args = ["-displayfd", "3", "-screen", "0", "1280x1600x24", "-nolisten", "tcp"];
  const server = spawn("Xvfb", args, { stdio: ["ignore", "ignore", "ignore", "pipe"] });
  const [number] = await Promise.race([
    once(server.stdio[3], "data"),
    once(server, "exit").then(() => {
      throw new Error("Xvfb did not start");
    }),
  ]);
  return { display: `:${String(number).trim()}`, end: () => server.kill() };
}
