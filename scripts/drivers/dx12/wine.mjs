// Wine in a Debian 13 root, with a cross-compiler for Windows and the Windows files that DX12 needs.
import { copyFileSync, existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { must } from "../../platforms/command.mjs";
import { debian, enter, missing, mustEnter } from "../../platforms/debian.mjs";

const PACKAGES = [
  "ca-certificates",
  "g++",
  "g++-mingw-w64-x86-64-posix",
  "git",
  "glslang-tools",
  "mesa-vulkan-drivers",
  "meson",
  "mingw-w64-tools",
  "ninja-build",
  "wine",
  "wine64",

  "xvfb",
];

/** An npm package with FXC and a DXC that signs shaders. */
const WEBGPU = "webgpu@0.6.2";

/** The path of `folder` in the root. */
const THERE = "/w";

/** Returns the missing requirements for Wine, one sentence each. */
export const lacking = () => missing((process.env.PATH ?? "").split(":"));

/** Creates the root once, with Windows files in `folder/windows`; returns `{ root, folder, windows }`. */
export function wine(folder, tell) {
  const root = debian(folder, "wine", "trixie", PACKAGES, { tell });
  const windows = join(folder, "windows");
  mkdirSync(windows, { recursive: true });
  if (!existsSync(join(windows, "dxcompiler.dll"))) {
    must("npm", ["pack", "--loglevel=error", WEBGPU], { cwd: windows });
    const from = "package/dist/win32-x64";
    const names = ["d3dcompiler_47.dll", "dxcompiler.dll"].map((name) => `${from}/${name}`);
    must("tar", ["-xzf", `${WEBGPU.replace("@", "-")}.tgz`, "--strip-components=3", ...names], {
      cwd: windows,
    });
  }
  return { root, folder, windows };
}

/** Converts a path below `folder` to its path in the root. */
export const inside = ({ folder }, path) => path.replace(folder, THERE);
export const windowsPath = (place, path) => `Z:${inside(place, path).replaceAll("/", "\\")}`;

/** Runs a program in the root. */
export const within = (place, argv, options) =>
  enter(place.root, argv, { binds: { [THERE.slice(1)]: place.folder }, ...options });

/** Runs a Windows program on a virtual display, started by the command prefix `through`. Returns its status and output. */
export function runWindows(place, argv, { env = {}, through = ["wine"], ...options } = {}) {
  // xvfb-run waits for a signal that the first process of a namespace does not receive.
  const screen = `:${100 + (process.pid % 900)}`;
  const script = `rm -f /tmp/.X11-unix/X\${1#:} /tmp/.X\${1#:}-lock
    Xvfb "$1" -screen 0 640x480x24 >/dev/null 2>&1 & sleep 2; shift; exec "$@"`;
  const own = {
    DISPLAY: screen,
    XDG_RUNTIME_DIR: "/tmp",
    WINEDEBUG: "-all",
    VK_ICD_FILENAMES: LAVAPIPE,
    ...env,
  };
  return within(place, ["sh", "-c", script, "sh", screen, ...through, ...argv], { env: own, ...options });
}

const LAVAPIPE = "/usr/share/vulkan/icd.d/lvp_icd.json";

/** Builds the HLSL compiler driver for this machine and for Windows if outdated; returns `{ here, windows }`. */
export function hlslc(place) {
  const source = fileURLToPath(new URL("hlslc.cpp", import.meta.url));
  const copy = join(place.folder, "hlslc.cpp");
  const built = { here: join(place.folder, "hlslc"), windows: join(place.windows, "hlslc.exe") };
  const isNew = (path) => existsSync(path) && statSync(path).mtimeMs > statSync(source).mtimeMs;
  if (isNew(built.here) && isNew(built.windows)) return built;
  copyFileSync(source, copy);
  const build = (compiler, to, more) =>
    mustEnter(
      place.root,
      [compiler, "-O1", "-static", "-o", inside(place, to), inside(place, copy), ...more],
      {
        binds: { [THERE.slice(1)]: place.folder },
      },
    );
  // Not static, since it loads a compiler that must share its C library.
  must("g++", ["-O1", "-o", built.here, source, "-ldl", "-pthread"]);
  build("x86_64-w64-mingw32-g++-posix", built.windows, []);
  return built;
}

/** The tested commit of vkd3d-proton, and its submodules by path. */
const PROTON = {
  source: ["HansKristian-Work/vkd3d-proton", "444561a920b253c9e03f702c67bdd7550ad14900"],
};

/** Cross-builds vkd3d-proton's d3d12.dll and d3d12core.dll once and returns their folder. */
export function proton(place, tell) {
  const made = join(place.folder, "proton");
  if (existsSync(join(made, "d3d12core.dll"))) return made;
  tell("building vkd3d-proton");
  const [name, commit] = PROTON.source;
  const script = `set -e
    rm -rf ${THERE}/vkd3d; git clone -q https://github.com/${name} ${THERE}/vkd3d; cd ${THERE}/vkd3d
    git checkout -q ${commit}; git submodule update -q --init --recursive --depth 1
    meson setup --cross-file build-win64.txt --buildtype release -Denable_tests=false -Denable_extras=false build
    ninja -C build
    mkdir -p ${THERE}/proton.part; cp build/libs/d3d12/d3d12.dll build/libs/d3d12core/d3d12core.dll ${THERE}/proton.part
    mv ${THERE}/proton.part ${THERE}/proton`;
  const { status, stderr, stdout } = within(place, ["sh", "-c", script]);
  if (status !== 0)
    throw new Error(`vkd3d-proton was not built: ${status}\n${(stdout + stderr).slice(-2000)}`);
  return made;
}

/** Writes a file below `folder`. */
export function put(place, name, text) {
  const path = join(place.folder, name);
  writeFileSync(path, text);
  return path;
}
