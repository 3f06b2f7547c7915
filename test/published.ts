/** The packages to publish, in a local registry: the main package, each platform's binary, and the dependencies. */
import { cpSync, readdirSync, writeFileSync } from "node:fs";
import type { Server } from "node:http";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { pack, platforms, publishedManifest } from "../scripts/packages.mjs";
import { temporary } from "./hashed.js";
import { installedProject } from "./packed.js";
import { registry } from "./registry.js";

const root = fileURLToPath(new URL("..", import.meta.url));

export interface Published {
  /** To be closed by the caller. */
  server: Server;
  url: string;
  /** The name of this platform's package, the only one whose binary loads. */
  here: string;
}

let published: Promise<Published> | undefined;

/** Packs the packages and serves them, once a process. */
export function publish(): Promise<Published> {
  return (published ??= packAndServe());
}

async function packAndServe(): Promise<Published> {
  const installed = join(installedProject(), "node_modules");
  const here = readdirSync(installed).find((name) => name.startsWith("lowrank-")) as string;
  const out = temporary();
  const tarballs = [pack(join(installed, "lowrank"), out)];
  for (const { name, manifest } of platforms()) {
    const folder = join(temporary(), name);
    cpSync(join(root, "npm", name), folder, { recursive: true });
    const binary = join(folder, manifest.main);
    if (manifest.name === here) cpSync(join(installed, here, manifest.main), binary);
    else writeFileSync(binary, "of another platform");
    tarballs.push(pack(folder, out));
  }
  for (const name of Object.keys(publishedManifest().dependencies))
    tarballs.push(pack(join(root, "node_modules", name), out));
  return { ...(await registry(tarballs)), here };
}

/** Returns an npm configuration that uses only this registry, with an empty cache. */
export function npmrc({ url }: Published): string {
  return `registry=${url}/\ncache=${temporary()}\naudit=false\nfund=false\nupdate-notifier=false\n`;
}
