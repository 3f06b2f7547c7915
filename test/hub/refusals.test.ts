/** Failures of a hub: one clear error each, and only resumable files left in the cache. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";

import { parseHubName } from "../../src/hub/name.js";
import { resolveHubSettings } from "../../src/hub/settings.js";
import type { HubOptions } from "../../src/hub/settings.js";
import { LowrankError, type ErrorCode } from "../../src/index.js";
import { temporary } from "../hashed.js";
import { fetched, FIRST, hubWith, shardedRepo, tinyRepo, tree } from "./models.js";
import { after, answers, Hub, TOKEN, type Repo } from "./server.js";

interface Refused {
  what: string;
  repo?: Repo;
  fault?: (hub: Hub) => void;
  name?: string;
  options?: HubOptions;
  env?: Record<string, string>;
  code?: ErrorCode;
  message: RegExp;
}

const without = (repo: Repo, ...names: string[]): Repo => {
  for (const name of names) delete repo.files[name];
  return repo;
};
const NOW = { "retry-after": "0" };

const cases: Refused[] = [
  {
    what: "a name that does not exist, to one without a token",
    name: "owner/absent",
    message:
      /^owner\/absent: there is no such public model at http\S+, and no folder of that name here; a private one needs a token: set it in HF_TOKEN \(status 401\)$/,
  },
  {
    what: "a name that does not exist",
    name: "owner/absent",
    options: { token: TOKEN },
    message:
      /^owner\/absent: there is no such model at http\S+, and no folder of that name here \(status 404\)$/,
  },
  {
    what: "a revision that does not exist",
    name: "owner/tiny@v9",
    message: /^owner\/tiny: it has no revision v9; see http\S+\/owner\/tiny\/commits \(status 404\)$/,
  },
  {
    what: "a private model, to one without a token",
    repo: tinyRepo({ private: true }),
    message:
      /^owner\/tiny: there is no such public model .* needs a token: set it in HF_TOKEN \(status 401\)$/,
  },
  {
    what: "a token that is wrong",
    options: { token: "hf_another" },
    message:
      /^owner\/tiny: the token was rejected: it is wrong or has expired; set another in HF_TOKEN \(status 401\)$/,
  },
  {
    what: "a gated model, to one without a token",
    repo: tinyRepo({ gated: true }),
    message:
      /^owner\/tiny: it is gated: request access at http\S+\/owner\/tiny, then set HF_TOKEN to your token \(status 401\)$/,
  },
  {
    what: "a gated model",
    repo: tinyRepo({ gated: true }),
    options: { token: TOKEN },
    message:
      /^owner\/tiny: it is gated: request access at http\S+\/owner\/tiny, with the account of the token \(status 403\)$/,
  },
  {
    what: "a model that has been disabled",
    fault: (hub) => hub.faults.push(...answers("/revision/", 403, 1, { "x-error-code": "DisabledRepo" })),
    message: /^owner\/tiny: it has been disabled; see .* \(status 403\)$/,
  },
  {
    what: "too many requests",
    fault: (hub) => hub.faults.push(...answers("/revision/", 429, 5, NOW)),
    message:
      /^owner\/tiny: http\S+ received too many requests \(status 429\); try again later; the received part is kept$/,
  },
  {
    what: "too many requests, for an hour",
    fault: (hub) => hub.faults.push(...answers("/revision/", 429, 1, { "retry-after": "3600" })),
    message: /too many requests \(status 429\)/,
  },
  {
    what: "a fault of the server's",
    fault: (hub) => hub.faults.push(...answers("/tree/", 503, 5, NOW)),
    message: /^owner\/tiny: http\S+ reports an internal error \(status 503\); try again later/,
  },
  {
    what: "a fault of the server of large files",
    fault: (hub) => hub.faults.push(...answers("model.safetensors", 500, 5, NOW)),
    message: /^owner\/tiny: http\S+ reports an internal error \(status 500\); try again later/,
  },
  {
    what: "a refusal that says no more",
    fault: (hub) => hub.faults.push(...answers("model.safetensors", 451)),
    message: /^owner\/tiny: http\S+ refused the request \(status 451\)$/,
  },
  {
    what: "a file that is listed and is not there",
    fault: (hub) => hub.faults.push(...answers("/resolve/", 404, 1, { "x-error-code": "EntryNotFound" })),
    message: /^owner\/tiny: a file in its listing is missing; see .* \(status 404\)$/,
  },
  {
    what: "a server that says nothing",
    fault: (hub) => hub.faults.push(...Array.from({ length: 9 }, () => () => true)),
    env: { HF_HUB_DOWNLOAD_TIMEOUT: "0.05" },
    message: /^owner\/tiny: http\S+ has not answered for 0\.05 s; try again later/,
  },
  {
    what: "another part than was asked for",
    fault: (hub) =>
      hub.faults.push(after(hub, weights, 12_000, "cut"), ({ at }, response) => {
        const headers = { "content-range": `bytes 0-${weights.length - 1}/${weights.length}` };
        if (at === "cdn") response.writeHead(206, headers).end(weights);
        return at === "cdn";
      }),
    message:
      /^owner\/tiny: model\.safetensors: the server sent another part \(bytes 0-\S+\) than requested \(from byte 12000\)$/,
  },
  {
    what: "no hub at that address",
    env: { HF_ENDPOINT: "http://127.0.0.1:2" },
    message:
      /^owner\/tiny: http:\/\/127\.0\.0\.1:2 cannot be reached \(ECONNREFUSED\); check the connection, or name a folder; there is no folder of that name here$/,
  },
  {
    what: "a page in place of an answer",
    fault: (hub) =>
      hub.faults.push((_request, response) => {
        response.writeHead(200, { "content-type": "text/html" }).end("<html>please log in</html>");
        return true;
      }),
    message: /^owner\/tiny: http\S+ does not respond like a hub; check HF_ENDPOINT$/,
  },
  {
    what: "a hash that would be a path",
    fault: (hub) =>
      hub.faults.push(({ url }, response) => {
        const tree = url.includes("/tree/");
        const file = { type: "file", path: "config.json", size: 2, oid: "../../../../elsewhere" };
        if (tree) response.writeHead(200).end(JSON.stringify([file]));
        return tree;
      }),
    message: /does not respond like a hub/,
  },
  {
    what: "offline, and not in the cache",
    options: { offline: true },
    message:
      /^owner\/tiny: is not in the cache \(\S+hub\), and offline mode uses no server; download it once without offline and HF_HUB_OFFLINE$/,
  },
  {
    what: "offline by the environment, and not in the cache",
    name: `owner/tiny@${FIRST}`,
    env: { HF_HUB_OFFLINE: "yes" },
    message: /^owner\/tiny@1+: is not in the cache/,
  },
  {
    what: "no safetensors",
    repo: without(tinyRepo(), "model.safetensors"),
    code: "ERR_FILE_FORMAT",
    message:
      /^owner\/tiny: has no model\.safetensors, only pytorch_model\.bin, which is not read; look for a conversion/,
  },
  {
    what: "no weights",
    repo: without(tinyRepo(), "model.safetensors", "pytorch_model.bin"),
    code: "ERR_FILE_FORMAT",
    message: /^owner\/tiny: has no model\.safetensors$/,
  },
  {
    what: "an adapter",
    repo: without(tinyRepo({ files: { "adapter_config.json": Buffer.from("{}") } }), "config.json"),
    code: "ERR_FILE_FORMAT",
    message: /^owner\/tiny: is an adapter, not a model: name its base model$/,
  },
  {
    what: "no model",
    repo: without(tinyRepo(), "config.json"),
    code: "ERR_FILE_FORMAT",
    message: /^owner\/tiny: has no config\.json, so that it cannot be loaded as a model$/,
  },
  {
    what: "a shard that is not there",
    repo: without(shardedRepo(), "model-00002-of-00002.safetensors"),
    code: "ERR_FILE_FORMAT",
    message:
      /^owner\/tiny: model\.safetensors\.index\.json names model-00002-of-00002\.safetensors, which is not there$/,
  },
  {
    what: "an index that names a path",
    repo: without(
      tinyRepo({
        files: { "model.safetensors.index.json": Buffer.from('{"weight_map":{"a":"../x.safetensors"}}') },
      }),
      "model.safetensors",
    ),
    code: "ERR_FILE_FORMAT",
    message: /^owner\/tiny: model\.safetensors\.index\.json does not say which files hold the weights$/,
  },
  {
    what: "two revisions",
    name: "owner/tiny@main",
    options: { revision: "v1" },
    code: "ERR_OPTION",
    message: /^owner\/tiny@main: revision is v1, which contradicts the name; give one of them$/,
  },
  {
    what: "a revision that is a path",
    options: { revision: "../../elsewhere" },
    code: "ERR_OPTION",
    message:
      /^owner\/tiny: "..\/..\/elsewhere" is not a revision: give the name of a branch or a tag, or a commit$/,
  },
  {
    what: "a token that no header can hold",
    env: { HF_TOKEN: "hf_se cret" },
    code: "ERR_OPTION",
    message: /^the token for the hub contains a space or another invalid character$/,
  },
  {
    what: "an address that is none",
    env: { HF_ENDPOINT: "hub.example" },
    code: "ERR_OPTION",
    message: /^HF_ENDPOINT must be the address of a hub, got "hub\.example"$/,
  },
  {
    what: "a cache that cannot be written",
    fault: () => {},
    env: { HF_HUB_CACHE: fileURLToPath(import.meta.url) },
    code: "ERR_WRITE",
    message:
      /^\S+refusals\.test\.ts\S+: cannot be written \((?:EEXIST|ENOTDIR)\): check its permissions, or move the cache with HF_HOME$/,
  },
];

const weights = tinyRepo().files["model.safetensors"] as Buffer;

for (const {
  what,
  repo = tinyRepo(),
  fault,
  name = "owner/tiny",
  options,
  env,
  code = "ERR_HUB",
  message,
} of cases) {
  test(`refused: ${what}`, async (t) => {
    const hub = await hubWith(repo);
    t.teardown(() => hub.close());
    fault?.(hub);
    const home = temporary();
    const error = await t.throwsAsync(fetched(hub, home, name, options, env));
    t.true(error instanceof LowrankError, String(error));
    t.is((error as LowrankError).code, code);
    t.regex(error?.message ?? "", message);
    t.false(error?.message.includes("hf_"));
    // Files are complete or resumable, and no lock is left.
    const [links, locks] = [/\.tmp$|\.incomplete$/, /\.locks\/[^/]+\/./];
    const left = tree(home).filter((path) => links.test(path) || locks.test(path));
    const resumable = /blobs\/[0-9a-f]{64}\.lowrank-[0-9a-f]{8}\.incomplete$/;
    t.deepEqual(
      left.filter((path) => !resumable.test(path)),
      [],
    );
    t.false(tree(home).some((path) => path.includes("/refs")));
  });
}

test("names that may be a hub's, and names that are only paths", (t) => {
  t.deepEqual(parseHubName("owner/name"), { repo: "owner/name", revision: undefined });
  t.deepEqual(parseHubName("Qwen/Qwen2.5-0.5B@refs/pr/1"), {
    repo: "Qwen/Qwen2.5-0.5B",
    revision: "refs/pr/1",
  });
  for (const path of [
    "name",
    "./owner/name",
    "../name",
    "/owner/name",
    "~/name",
    "a/b/c",
    String.raw`owner\name`,
    "owner/model.safetensors",
    "owner/model.GGUF",
    "owner/",
    "owner/a--b",
    "owner/a..b",
    "owner/name.git",
    "-owner/name",
    "owner/name-",
    `owner/${"n".repeat(96)}`,
    "owner/na me",
    "",
  ])
    t.is(parseHubName(path), undefined, path);
  for (const revision of [
    "",
    "..",
    "a/../b",
    "/a",
    "a/",
    "a b",
    ".a",
    "a.",
    "a.lock",
    "a@{0}",
    "a\\b",
    "%2e%2e",
  ])
    t.throws(
      () => parseHubName(`owner/name@${revision}`),
      { code: "ERR_OPTION", message: /is not a revision/ },
      revision,
    );
});

test("the environment variables have the same meaning as for huggingface_hub", (t) => {
  const at = (env: Record<string, string>): string => resolveHubSettings({}, env).cacheDir;
  t.true(at({}).endsWith(join(".cache", "huggingface", "hub")));
  t.is(at({ XDG_CACHE_HOME: "/x" }), join("/x", "huggingface", "hub"));
  t.is(at({ XDG_CACHE_HOME: "/x", HF_HOME: "/h" }), join("/h", "hub"));
  t.is(at({ HF_HOME: "/h", HUGGINGFACE_HUB_CACHE: "/old" }), "/old");
  t.is(at({ HF_HOME: "/h", HUGGINGFACE_HUB_CACHE: "/old", HF_HUB_CACHE: "/c" }), "/c");
  t.false(at({ HF_HOME: "~/h" }).includes("~"));
  t.is(resolveHubSettings({ cacheDir: "/mine" }, { HF_HUB_CACHE: "/c" }).cacheDir, "/mine");
  const offline = (env: Record<string, string>): boolean => resolveHubSettings({}, env).offline;
  t.deepEqual(
    ["1", "on", "YES", "true", "0", "", "no"].map((value) => offline({ HF_HUB_OFFLINE: value })),
    [true, true, true, true, false, false, false],
  );
  t.true(offline({ TRANSFORMERS_OFFLINE: "1" }));
  t.false(resolveHubSettings({ offline: false }, { HF_HUB_OFFLINE: "1" }).offline);
  t.is(resolveHubSettings({}, { HF_ENDPOINT: "https://hub.example/" }).endpoint, "https://hub.example");
  const home = temporary();
  mkdirSync(join(home, "elsewhere"));
  writeFileSync(join(home, "token"), "hf_stored\n");
  writeFileSync(join(home, "elsewhere", "token"), "hf_other");
  const token = (env: Record<string, string>): string | undefined =>
    resolveHubSettings({}, { HF_HOME: home, ...env }).token;
  t.is(token({}), "hf_stored");
  t.is(token({ HF_TOKEN_PATH: join(home, "elsewhere", "token") }), "hf_other");
  t.is(token({ HUGGING_FACE_HUB_TOKEN: "hf_old" }), "hf_old");
  t.is(token({ HUGGING_FACE_HUB_TOKEN: "hf_old", HF_TOKEN: "hf_new" }), "hf_new");
  t.is(resolveHubSettings({ token: "hf_given" }, { HF_TOKEN: "hf_new" }).token, "hf_given");
  rmSync(join(home, "token"));
  t.is(token({}), undefined);
});
