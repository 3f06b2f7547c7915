/** The models of the test hub, and their caches. */
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

import { fetchSnapshot, type Snapshot } from "../../src/hub/snapshot.js";
import type { HubOptions } from "../../src/hub/settings.js";
import { parseHubName, type HubName } from "../../src/hub/name.js";
import { tinyModel } from "../hashed.js";
import { Hub, type Repo } from "./server.js";

export const FIRST = "1".repeat(40);
export const SECOND = "2".repeat(40);

/** Returns the files of a folder. */
export function filesOf(folder: string): Record<string, Buffer> {
  return Object.fromEntries(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))]));
}

/** Returns the tiny model as a repository, with the other files that most repositories have. */
export function tinyRepo(more: Partial<Repo> = {}): Repo {
  const files = {
    ...filesOf(tinyModel()),
    "README.md": Buffer.from("# A model"),
    "pytorch_model.bin": Buffer.alloc(20_000, 1),
    "generation_config.json": Buffer.from("{}"),
    ...more.files,
  };
  return { commit: FIRST, ...more, files };
}

/** Returns the same repository with its weights in two files. */
export function shardedRepo(): Repo {
  const repo = tinyRepo();
  const whole = repo.files["model.safetensors"] as Buffer;
  const length = Number(whole.readBigUInt64LE(0));
  type Entry = { dtype: string; shape: number[]; data_offsets: [number, number] };
  const { __metadata__: _, ...tensors } = JSON.parse(whole.subarray(8, 8 + length).toString()) as Record<
    string,
    Entry
  >;
  const weight_map: Record<string, string> = {};
  const entries = Object.entries(tensors);
  const half = Math.ceil(entries.length / 2);
  for (const [i, part] of [entries.slice(0, half), entries.slice(half)].entries()) {
    const name = `model-0000${i + 1}-of-00002.safetensors`;
    let offset = 0;
    const header: Record<string, Entry> = {};
    const data = part.map(
      ([
        tensor,
        {
          dtype,
          shape,
          data_offsets: [from, to],
        },
      ]) => {
        header[tensor] = { dtype, shape, data_offsets: [offset, (offset += to - from)] };
        weight_map[tensor] = name;
        return whole.subarray(8 + length + from, 8 + length + to);
      },
    );
    const text = Buffer.from(JSON.stringify(header));
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(text.length));
    repo.files[name] = Buffer.concat([size, text, ...data]);
  }
  delete repo.files["model.safetensors"];
  repo.files["model.safetensors.index.json"] = Buffer.from(JSON.stringify({ metadata: {}, weight_map }));
  return repo;
}

/** Returns the environment of a user with a hub and a cache, and without a token. */
export function environment(hub: { url: string }, home: string): Record<string, string> {
  return { HF_ENDPOINT: hub.url, HF_HOME: home, HF_HUB_DOWNLOAD_TIMEOUT: "5" };
}

/** Downloads a model with a separate environment. */
export async function fetched(
  hub: { url: string; home?: string },
  home: string,
  name: string,
  options: HubOptions = {},
  env: Record<string, string> = {},
): Promise<Snapshot> {
  hub.home = home;
  return fetchSnapshot(parseHubName(name) as HubName, options, { ...environment(hub, home), ...env });
}

/** Returns the files below a folder, by path. */
export function tree(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => name.replaceAll("\\", "/"))
    .toSorted();
}

/** Starts a hub with one model, `owner/tiny`. */
export function hubWith(...versions: Repo[]): Promise<Hub> {
  return new Hub({ "owner/tiny": versions }).listen();
}
