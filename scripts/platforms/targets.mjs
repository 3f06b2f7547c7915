// The systems on which packages are tried: a root each, with its Node and the way to start it.
import {
  closeSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { SHORT } from "./attempt.mjs";
import { must } from "./command.mjs";
import { debian, enter, mustEnter } from "./debian.mjs";
import { share } from "./host.mjs";
import { NODES, WINDOWS, nodeFor, nodeForMusl, npm } from "./node.mjs";

const ARM = ["libc6:arm64", "libgcc-s1:arm64", "libstdc++6:arm64"];

/**
 * Emulated x64 processors: without AVX-512, and without everything after SSE3. `levels` are the values of `LOWRANK_ISA` that the engine detects there.
 */
export const PROCESSORS = {
  avx2: { model: "max,-avx512f", levels: "baseline, avx2" },
  sse2: { model: "qemu64", levels: "baseline" },
};

/** The system on which they are emulated. */
export const onProcessor = ({ levels }) => `Debian 12, qemu-user 7.2, a processor of ${levels}`;

/** The command prefix that runs a program on one. */
export const byProcessor = ({ model }) => ["qemu-x86_64", "-cpu", model];

/** The trials of each platform: `where`, the `recipe`, and `system(folder, build, tell)`, which returns the system for `attempt`. */
export const TRIALS = {
  "linux-x64-gnu": [
    ...NODES.map((version) => glibc("Debian 12", "bookworm", version)),
    ...NODES.map((version) => glibc("Debian 11", "bullseye", version)),
    ...Object.values(PROCESSORS).map(processor),
  ],
  "linux-x64-musl": [musl("musl 1.2.5", "x86_64", "amd64")],
  "linux-arm64-gnu": [emulated("Debian 12, qemu-user 7.2, 4 short steps", "linux-arm64", ["qemu-aarch64"])],
  "linux-arm64-musl": [musl("musl 1.2.5, qemu-user 10.0, 4 short steps", "aarch64", "arm64")],
  "win32-x64-msvc": [wine("built by mingw, Wine 8")],
};

function glibc(where, suite, version) {
  // Node 26 needs libatomic1.
  const packages = ["ca-certificates", "libatomic1"];
  return {
    where,
    system(folder, _build, tell) {
      const root = debian(folder, where.toLowerCase().replace(" ", "-"), suite, packages, { tell });
      return starter(folder, root, nodeFor(folder, "linux-x64", version), ["/opt/node/bin/node"]);
    },
  };
}

function emulated(where, platform, processor) {
  return {
    where,
    recipe: SHORT,
    system(folder, _build, tell) {
      const command = [...processor, "/opt/node/bin/node"];
      return starter(folder, qemuRoot(folder, tell), nodeFor(folder, platform, NODES[2]), command);
    },
  };
}

/** npm runs on the real processor, since on an emulated x64 it crashes now and then. */
function processor(of) {
  return {
    where: `${onProcessor(of)}, 4 short steps`,
    recipe: SHORT,
    system(folder, _build, tell) {
      const [root, node] = [qemuRoot(folder, tell), nodeFor(folder, "linux-x64", NODES[2])];
      const here = starter(folder, root, node, ["/opt/node/bin/node"]);
      const there = starter(folder, root, node, [...byProcessor(of), "/opt/node/bin/node"]);
      const lowrank = (args, log) => there.node(["node_modules/lowrank/dist/cli/main.js", ...args], log);
      return { ...there, npm: here.npm, lowrank };
    },
  };
}

/** A root with emulators of other processors, and arm64's libraries. */
export function qemuRoot(folder, tell) {
  const packages = ["ca-certificates", "qemu-user", ...ARM];
  return debian(folder, "arm64", "bookworm", packages, { architectures: ["arm64"], tell });
}

/** A root with only musl and a shell, so that no library of glibc can be found. */
function musl(where, processor, architecture) {
  const foreign = architecture !== "amd64";
  return {
    where,
    recipe: foreign ? SHORT : undefined,
    system(folder, build, tell) {
      // musl 1.2.5 and statically linked programs come from Debian 13.
      const packages = ["busybox-static", "qemu-user-static", `musl:${architecture}`];
      const from = debian(folder, `trixie-${architecture}`, "trixie", packages, {
        architectures: foreign ? [architecture] : [],
        tell,
      });
      const root = join(folder, `musl-${processor}`);
      if (!existsSync(join(root, "bin/sh"))) {
        for (const made of ["bin", "usr/bin", "lib", "root", "tmp", "etc"])
          mkdirSync(join(root, made), { recursive: true });
        const loader = `ld-musl-${processor}.so.1`;
        cpSync(join(from, "lib", loader), join(root, "lib", loader), { dereference: true });
        copyFileSync(join(root, "lib", loader), join(root, "lib", `libc.musl-${processor}.so.1`));
        if (foreign)
          copyFileSync(join(from, `usr/bin/qemu-${processor}-static`), join(root, `bin/qemu-${processor}`));
        // Commands of npm packages need a shell and env.
        for (const name of ["usr/bin/env", "bin/sh"])
          copyFileSync(join(from, "usr/bin/busybox"), join(root, name));
      }
      share(root);
      const command = foreign ? [`/bin/qemu-${processor}`, "/opt/node/bin/node"] : ["/opt/node/bin/node"];
      const env = { LD_LIBRARY_PATH: "/opt/node/bin" };
      return starter(folder, root, nodeForMusl(folder, build.root, processor), command, env);
    },
  };
}

/** A library of Windows 10 that Rust and Node need and Wine lacks: random numbers under a newer name. */
const PRNG = `
  unsigned char SystemFunction036(void *, unsigned long);
  __declspec(dllexport) int ProcessPrng(unsigned char *data, unsigned long long size) {
    return SystemFunction036(data, size);
  }
`;

/** A root with Wine, the folder of its Node with the missing library, and its environment. */
export function wineRoot(folder, build, tell) {
  const quiet = { WINEDEBUG: "-all" };
  const root = debian(folder, "wine", "bookworm", ["ca-certificates", "wine", "wine64"], { tell });
  // Wine's server writes the registry when it ends, which a command does not wait for.
  if (!existsSync(join(root, "root/.wine/system.reg")))
    mustEnter(root, ["sh", "-c", "wine wineboot --init && wineserver --wait"], { env: quiet });
  const node = nodeFor(folder, "win-x64", WINDOWS);
  if (!existsSync(join(node, "bin/bcryptprimitives.dll"))) {
    writeFileSync(join(build.root, "tmp/prng.c"), PRNG);
    const compile = ["x86_64-w64-mingw32-gcc", "-shared", "-o", "prng.dll", "prng.c", "-ladvapi32"];
    mustEnter(build.root, compile, { cwd: "/tmp" });
    copyFileSync(join(build.root, "tmp/prng.dll"), join(node, "bin/bcryptprimitives.dll"));
  }
  const env = { ...quiet, NODE_SKIP_PLATFORM_CHECK: "1", WINEPATH: "Z:\\opt\\node\\bin" };
  return { root, node, env };
}

function wine(where) {
  return {
    where,
    system(folder, build, tell) {
      const { root, node, env } = wineRoot(folder, build, tell);
      const started = starter(folder, root, node, ["wine", "/opt/node/bin/node.exe"], env);
      return {
        ...started,
        // Wine does not support libuv's connections, so npm on Linux downloads the packages.
        prepare(tarballs) {
          const made = join(folder, "fetched");
          rmSync(made, { recursive: true, force: true });
          mkdirSync(made, { recursive: true });
          const how = ["--cache", join(folder, "npm-cache"), "--force", "--os", "win32", "--cpu", "x64"];
          must("npm", ["install", ...how, ...tarballs], { cwd: made });
        },
        npm: (args, log) => started.npm([...args, "--offline", "--cache", "Z:\\npm-cache"], log),
        // Wine's cmd does not run npm's command scripts either.
        lowrank: (args, log) => started.node(["node_modules/lowrank/dist/cli/main.js", ...args], log),
      };
    },
  };
}

/** Starts a root's Node in a trial's folder, mounted as /trial; `command` is the shell command for `node`. */
function starter(folder, root, node, command, extra = {}) {
  const bin = join(folder, "bin", command.join(" ").replaceAll(/\W+/g, "-"));
  mkdirSync(bin, { recursive: true });
  writeFileSync(join(bin, "node"), `#!/bin/sh\nexec ${command.join(" ")} "$@"\n`, { mode: 0o755 });
  const cache = join(folder, "npm-cache");
  mkdirSync(cache, { recursive: true });
  const trial = join(folder, "trials", `${basename(root)}-${basename(node)}`);
  const binds = {
    "/trial": trial,
    "/opt/node": node,
    "/opt/npm": npm(folder),
    "/opt/bin": bin,
    "/npm-cache": cache,
  };
  const env = { PATH: "/opt/bin:/usr/sbin:/usr/bin:/sbin:/bin", ...extra };
  const start = (args, log) => {
    const [out, wrong] = [openSync(log, "w"), openSync(`${log}.err`, "w")];
    try {
      // Files instead of pipes, whose output Wine loses.
      const stdio = ["ignore", out, wrong];
      return enter(root, ["node", ...args], { binds, env, cwd: "/trial", stdio, seconds: 1800 }).status;
    } finally {
      closeSync(out);
      closeSync(wrong);
    }
  };
  return {
    trial,
    node: start,
    lowrank: (args, log) => start(["/opt/npm/bin/npx-cli.js", "lowrank", ...args], log),
    npm: (args, log) => start(["/opt/npm/bin/npm-cli.js", ...args], log),
  };
}
