// The network settings of this machine that a root needs, too: host names, certificates, and the settings of apt, npm, pip and cargo.
import { cpSync, existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { env } from "node:process";
import { answer } from "./command.mjs";

const BUNDLE = "/etc/ssl/certs/ca-certificates.crt";

/** Files of this machine, and their paths in a root. */
const FILES = [
  ["/etc/resolv.conf", "/etc/resolv.conf"],
  ["/etc/hosts", "/etc/hosts"],
  ["/etc/pip.conf", "/etc/pip.conf"],
  ...[".npmrc", ".cargo/config.toml", ".config/pip/pip.conf", ".pip/pip.conf"].map((file) => [
    join(homedir(), file),
    join("/root", file),
  ]),
  [env.SSL_CERT_FILE ?? env.NODE_EXTRA_CA_CERTS ?? BUNDLE, BUNDLE],
];

/** The URL of Debian's archive in this machine's apt settings, by label; undefined if there is none. */
export function mirror(label) {
  const sites = answer("apt-get", ["indextargets", "--format", "$(SITE)", `Label: ${label}`]);
  return sites?.split("\n")[0] || undefined;
}

/** Copies this machine's settings to a root; repeat it after ca-certificates is installed there. */
export function share(root) {
  for (const [from, to] of FILES) {
    if (!existsSync(from)) continue;
    const target = join(root, to);
    mkdirSync(dirname(target), { recursive: true });
    // A package may have created a link here.
    rmSync(target, { force: true });
    cpSync(from, target, { dereference: true });
  }
  const settings = answer("apt-config", ["dump"])?.match(/^Acquire::(http|https|Check-|Retries).*$/gm) ?? [];
  const apt = join(root, "etc/apt/apt.conf.d");
  if (existsSync(apt)) writeFileSync(join(apt, "00host"), `${settings.join("\n")}\n`);
}

/** The environment of a root's commands: proxies and registries of this machine, and one certificate bundle. */
export function shared() {
  const kept = Object.entries(env).filter(([name]) =>
    /^((https?|no|all)_proxy|NPM_CONFIG_.*|PIP_(INDEX|EXTRA_INDEX|TRUSTED|DEFAULT_TIMEOUT).*|CARGO_(HTTP|NET|REGISTR|SOURCE).*)$/.test(
      name.endsWith("_PROXY") ? name.toLowerCase() : name,
    ),
  );
  const bundles = ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "PIP_CERT", "CARGO_HTTP_CAINFO", "CURL_CA_BUNDLE"];
  return { ...Object.fromEntries(kept), ...Object.fromEntries(bundles.map((name) => [name, BUNDLE])) };
}
