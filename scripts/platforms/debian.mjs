// Debian roots, created by debootstrap and kept, and commands in them. A root's mounts exist as long as the command runs.
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { must, run } from "./command.mjs";
import { mirror, share, shared } from "./host.mjs";

/** Debian's package of each tool; all of them are in its archive. */
const TOOLS = { debootstrap: "debootstrap", unshare: "util-linux", chroot: "coreutils", mount: "mount" };

/** The missing requirements for creating and entering a root, one sentence each. */
export function missing(folders, getuid = process.getuid) {
  const absent = Object.keys(TOOLS).filter(
    (tool) => !folders.some((folder) => existsSync(join(folder, tool))),
  );
  return [
    ...(process.platform === "linux" && process.arch === "x64" ? [] : ["it runs on Linux x64"]),
    ...(getuid?.() === 0 ? [] : ["it makes roots of other systems, which only root may: run it as root"]),
    ...absent.map((tool) => `${tool} is not here: apt-get install ${TOOLS[tool]}`),
  ];
}

/** Runs a command in a root; `binds` maps folders of this machine to their paths there. */
export function enter(root, argv, { binds = {}, cwd = "/root", env = {}, ...options } = {}) {
  return run("unshare", entering(root, argv, binds, cwd), { ...options, env: environment(env) });
}

/** Runs a command in a root; throws if it fails. */
export function mustEnter(root, argv, { binds = {}, cwd = "/root", env = {}, ...options } = {}) {
  return must("unshare", entering(root, argv, binds, cwd), { ...options, env: environment(env) });
}

function environment(env) {
  const own = { HOME: "/root", LANG: "C.UTF-8", PATH: "/usr/sbin:/usr/bin:/sbin:/bin", TERM: "dumb" };
  return { ...own, ...shared(), ...env };
}

function entering(root, argv, binds, cwd) {
  const bound = Object.entries(binds).flatMap(([to, from]) => {
    mkdirSync(join(root, to), { recursive: true });
    return [from, to];
  });
  // A separate process namespace: processes that the command leaves running, such as Wine's server, end with it.
  const script = `
    root=$1; cwd=$2; binds=$3; shift 3
    mkdir -p "$root/proc" "$root/dev" "$root/sys" "$root/tmp"
    mount -t proc proc "$root/proc" || exit 125
    for host in dev sys; do mount --rbind "/$host" "$root/$host" || exit 125; done
    while [ "$binds" -gt 0 ]; do
      mount --bind "$1" "$root/$2" || exit 125
      binds=$((binds - 1)); shift 2
    done
    exec chroot "$root" /bin/sh -c 'cd "$1" && shift && exec "$@"' sh "$cwd" "$@"`;
  const namespaces = ["--mount", "--pid", "--fork", "--kill-child"];
  return [...namespaces, "sh", "-c", script, "sh", root, cwd, String(bound.length / 2), ...bound, ...argv];
}

/** A root of a Debian release with the given packages; recreated when a package is missing. */
export function debian(folder, name, suite, packages, { architectures = [], tell = () => {} } = {}) {
  const root = join(folder, name);
  if (!existsSync(root)) {
    tell(`${name}: debootstrap of ${suite} into ${root}`);
    const made = `${root}.part`;
    rmSync(made, { recursive: true, force: true });
    const archive = mirror("Debian");
    must("debootstrap", ["--variant=minbase", suite, made, ...(archive === undefined ? [] : [archive])]);
    addSecurity(made, suite);
    renameSync(made, root);
  }
  const stamp = join(root, "packages.json");
  const wanted = JSON.stringify([...architectures, ...packages]);
  share(root);
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return root;
  tell(`${name}: apt-get install ${packages.join(" ")}`);
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  for (const architecture of architectures) mustEnter(root, ["dpkg", "--add-architecture", architecture]);
  mustEnter(root, ["apt-get", "update", "-q"], { env });
  mustEnter(root, ["apt-get", "install", "-y", "-q", "--no-install-recommends", ...packages], { env });
  mustEnter(root, ["apt-get", "clean"]);
  share(root);
  writeFileSync(stamp, wanted);
  return root;
}

/** Adds Debian's security archive. */
function addSecurity(root, suite) {
  const sources = join(root, "etc/apt/sources.list");
  const main = /^deb (\S+)/m.exec(readFileSync(sources, "utf8"))?.[1];
  const archive = mirror("Debian-Security") ?? `${main}-security`;
  appendFileSync(sources, `deb ${archive} ${suite}-security main\n`);
}
