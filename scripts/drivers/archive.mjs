// Unpacks Debian packages into a separate folder, without installing them and without root.
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { must } from "../platforms/command.mjs";
import { mirror } from "../platforms/host.mjs";

const SUITES = ["bookworm", "bookworm-backports", "trixie"];

/** Returns the folder with the contents of a suite's packages, each given as `NAME` or `NAME=VERSION`. */
export function unpacked(folder, suite, packages) {
  const root = join(folder, "debian", `${suite}-${packages.join("-").replaceAll(/[^\w.+=-]/g, "_")}`);
  if (existsSync(root)) return root;
  const apt = settings(folder);
  const made = `${root}.part`;
  rmSync(made, { recursive: true, force: true });
  mkdirSync(made, { recursive: true });
  const named = packages.map((name) => (name.includes("=") ? name : `${name}/${suite}`));
  must("apt-get", [...apt, "download", ...named], { cwd: made });
  for (const file of readdirSync(made).filter((name) => name.endsWith(".deb"))) {
    must("dpkg-deb", ["-x", join(made, file), made]);
    rmSync(join(made, file));
  }
  renameSync(made, root);
  return root;
}

/** Returns options that make apt use separate package lists for these suites; downloaded once. */
function settings(folder) {
  const apt = join(folder, "apt");
  const options = {
    "Dir::Etc::sourcelist": join(apt, "sources.list"),
    "Dir::Etc::sourceparts": "-",
    "Dir::State::lists": join(apt, "lists"),
    "Dir::State::status": join(apt, "status"),
    "Dir::Cache": join(apt, "cache"),
    "APT::Architecture": "amd64",
    "APT::Architectures": "amd64",
    // apt's sandbox user may not write to this user's folder.
    "APT::Sandbox::User": "",
  };
  const told = Object.entries(options).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
  const stamp = join(apt, "fetched");
  if (existsSync(stamp)) return told;
  for (const made of ["lists/partial", "cache/archives/partial"])
    mkdirSync(join(apt, made), { recursive: true });
  const archive = mirror("Debian");
  if (archive === undefined) throw new Error("apt has no archive of Debian's packages: apt-get update");
  const signed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
  writeFileSync(
    options["Dir::Etc::sourcelist"],
    SUITES.map((suite) => `deb ${signed} ${archive} ${suite} main\n`).join(""),
  );
  writeFileSync(options["Dir::State::status"], "");
  must("apt-get", [...told, "update", "-q"]);
  writeFileSync(stamp, "");
  return told;
}

const LIBRARIES = "usr/lib/x86_64-linux-gnu";

export const libraries = (root) => join(root, LIBRARIES);

/**
 * Returns the command prefix that runs a program of a newer Debian here, with that release's loader and C library. `more`
 * are folders with further libraries.
 */
export function newer(folder, more = []) {
  const root = unpacked(folder, "trixie", ["libc6", "libgcc-s1", "libstdc++6"]);
  const found = [libraries(root), ...more].join(":");
  return [join(libraries(root), "ld-linux-x86-64.so.2"), "--library-path", found];
}
