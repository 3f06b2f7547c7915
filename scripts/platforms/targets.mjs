// The systems that packages are tried on: a root each, its Node, and how that is started there.
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
 * Processors of x64 that are emulated: without AVX-512, and without all past SSE3. `levels` are those of `LOWRANK_ISA`
 * that the engine finds there by itself, nothing of it being set.
 */
export const PROCESSORS = {
  avx2: { model: "max,-avx512f", levels: "baseline, avx2" },
  sse2: { model: "qemu64", levels: "baseline" },
};

/** Where they are emulated. */
export const onProcessor = ({ levels }) => `Debian 12, qemu-user 7.2, a processor of ${levels}`;

/** What starts a program on one. */
export const byProcessor = ({ model }) => ["qemu-x86_64", "-cpu", model];

/** Trials of each platform: `where`, by what `recipe`, and `system(folder, build, tell)`, which gives `attempt`'s. */
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
  // Node 26 itself needs libatomic1.
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

/** npm runs on the processor that is here, since on an emulated x64 it ends with a fault of its own now and then. */
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

/** A root with what runs the instructions of other processors, and arm64's libraries beside its own. */
export function qemuRoot(folder, tell) {
  const packages = ["ca-certificates", "qemu-user", ...ARM];
  return debian(folder, "arm64", "bookworm", packages, { architectures: ["arm64"], tell });
}

/** A root that holds musl and a shell and nothing else, so that no library of glibc can be found. */
function musl(where, processor, architecture) {
  const foreign = architecture !== "amd64";
  return {
    where,
    recipe: foreign ? SHORT : undefined,
    system(folder, build, tell) {
      // musl 1.2.5 and what is linked to no library come from Debian 13.
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
        // What runs commands of npm's packages: a shell, and env.
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

/** Wine lacks one library that Rust and Node need of Windows 10: random numbers under a newer name. */
const PRNG = `
  unsigned char SystemFunction036(void *, unsigned long);
  __declspec(dllexport) int ProcessPrng(unsigned char *data, unsigned long long size) {
    return SystemFunction036(data, size);
  }
`;

/** A root with Wine, the folder of its Node with what Wine lacks, and its environment. */
export function wineRoot(folder, build, tell) {
  const quiet = { WINEDEBUG: "-all" };
  const root = debian(folder, "wine", "bookworm", ["ca-certificates", "wine", "wine64"], { tell });
  // Wine's registry is written by its server at its end, which a command does not wait for.
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
        // Wine makes no connections as libuv asks for them: npm on Linux takes from the registry what it needs.
        prepare(tarballs) {
          const made = join(folder, "fetched");
          rmSync(made, { recursive: true, force: true });
          mkdirSync(made, { recursive: true });
          const how = ["--cache", join(folder, "npm-cache"), "--force", "--os", "win32", "--cpu", "x64"];
          must("npm", ["install", ...how, ...tarballs], { cwd: made });
        },
        npm: (args, log) => started.npm([...args, "--offline", "--cache", "Z:\\npm-cache"], log),
        // Nor does its cmd run the scripts that npm makes of a package's commands.
        lowrank: (args, log) => started.node(["node_modules/lowrank/dist/cli/main.js", ...args], log),
      };
    },
  };
}

/** Starts a root's Node in the folder of a trial, which is /trial there; `command` is what `node` is to a shell. */
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
      // Files and no pipes: Wine loses what is written to those.
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
