/** Downloads from a hub: which files, in which layout, complete or resumed, and with which token. */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import test from "ava";

import { CachedRepo } from "../../src/hub/cache.js";
import type { DownloadProgress } from "../../src/hub/settings.js";
import { temporary } from "../hashed.js";
import { fetched, FIRST, hubWith, SECOND, shardedRepo, tinyRepo, tree } from "./models.js";
import { after, answers, etagOf, gitHash, Hub, sha256, TOKEN } from "./server.js";

const NEEDED = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"];
const weightsOf = ({ files }: { files: Record<string, Buffer> }): Buffer =>
  files["model.safetensors"] as Buffer;

test("only the necessary files are downloaded, in the layout that Hugging Face's libraries share", async (t) => {
  const repo = tinyRepo();
  const hub = await hubWith(repo);
  t.teardown(() => hub.close());
  const home = temporary();
  const { folder, commit } = await fetched(hub, home, "owner/tiny");
  t.is(commit, FIRST);
  const place = join(home, "hub", "models--owner--tiny");
  t.is(folder, join(place, "snapshots", FIRST));
  t.deepEqual(tree(folder), NEEDED);
  t.is(readFileSync(join(place, "refs", "main"), "utf8"), FIRST);
  const etag = (name: string): string =>
    (name === "model.safetensors" ? sha256 : gitHash)(repo.files[name] as Buffer);
  t.deepEqual(tree(join(place, "blobs")), NEEDED.map(etag).toSorted());
  for (const name of NEEDED) {
    t.deepEqual(readFileSync(join(folder, name)), repo.files[name]);
    t.is(readlinkSync(join(folder, name)), join("..", "..", "blobs", etag(name)));
  }
  t.deepEqual(tree(join(home, "hub", ".locks", "models--owner--tiny")), []);
});

test("present files are not downloaded again, and a present commit needs no request", async (t) => {
  const repo = tinyRepo();
  const hub = await hubWith(repo);
  t.teardown(() => hub.close());
  const home = temporary();
  await fetched(hub, home, "owner/tiny");
  hub.requests.length = 0;
  await fetched(hub, home, "owner/tiny");
  t.deepEqual(hub.asked("resolve"), []);
  t.is(hub.asked("/api/").length, 3);
  hub.requests.length = 0;
  const { folder } = await fetched(hub, home, `owner/tiny@${FIRST}`);
  t.is(folder, join(home, "hub", "models--owner--tiny", "snapshots", FIRST));
  t.deepEqual(hub.requests, []);
  t.is(hub.sentOf(weightsOf(repo)), weightsOf(repo).length);
});

test("a newer commit downloads only the changed files, and both commits stay", async (t) => {
  const first = tinyRepo({ revisions: ["v1"] });
  const config = { ...first.files, "generation_config.json": Buffer.from('{"do_sample":true}') };
  const hub = await hubWith(first, { files: config, commit: SECOND, revisions: ["main", "pr/1"] });
  t.teardown(() => hub.close());
  const home = temporary();
  const old = await fetched(hub, home, "owner/tiny@v1");
  t.is(old.commit, FIRST);
  const now = await fetched(hub, home, "owner/tiny", { revision: "pr/1" });
  t.is(now.commit, SECOND);
  t.deepEqual(
    hub.asked("/resolve/2").map(({ url }) => url.split("/").at(-1)),
    ["generation_config.json"],
  );
  t.is(readFileSync(join(old.folder, "generation_config.json"), "utf8"), "{}");
  t.is(readFileSync(join(now.folder, "generation_config.json"), "utf8"), '{"do_sample":true}');
  t.deepEqual(tree(join(home, "hub", "models--owner--tiny", "refs")), ["pr", "pr/1", "v1"]);
});

test("weights in several files: the files in the index", async (t) => {
  const repo = shardedRepo();
  repo.files["model-other.safetensors"] = Buffer.alloc(20_000, 3);
  const hub = await hubWith(repo);
  t.teardown(() => hub.close());
  const { folder } = await fetched(hub, temporary(), "owner/tiny");
  t.deepEqual(
    tree(folder).filter((name) => name.startsWith("model")),
    ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
  );
});

test("progress goes from nothing to all, once", async (t) => {
  const repo = tinyRepo();
  const hub = await hubWith(repo);
  t.teardown(() => hub.close());
  const told: DownloadProgress[] = [];
  await fetched(hub, temporary(), "owner/tiny", { onProgress: (progress) => told.push(progress) });
  const bytes = NEEDED.reduce((sum, name) => sum + (repo.files[name] as Buffer).length, 0);
  t.true(told.every((one) => one.model === "owner/tiny" && one.bytes === bytes));
  t.deepEqual(
    told.map(({ bytesRead }) => bytesRead),
    told.map(({ bytesRead }) => bytesRead).toSorted((a, b) => a - b),
  );
  t.is(told.at(-1)?.bytesRead, bytes);
  t.is(told.at(-1)?.file, "model.safetensors");
});

test("a download continues after a lost connection, and only the missing bytes are sent", async (t) => {
  const repo = tinyRepo();
  const weights = weightsOf(repo);
  const hub = await hubWith(repo);
  t.teardown(() => hub.close());
  hub.faults.push(after(hub, weights, 12_000, "cut"), after(hub, weights, 5_000, "cut"));
  const { folder } = await fetched(hub, temporary(), "owner/tiny");
  t.deepEqual(readFileSync(join(folder, "model.safetensors")), weights);
  t.is(hub.sentOf(weights), weights.length);
  t.deepEqual(
    hub.asked(sha256(weights)).map(({ range, ifRange }) => [range, ifRange]),
    [
      [undefined, undefined],
      ["bytes=12000-", etagOf(weights)],
      ["bytes=17000-", etagOf(weights)],
    ],
  );
});

test("if the bytes on the server have changed, a continued download takes all of them", async (t) => {
  const repo = tinyRepo();
  const weights = weightsOf(repo);
  const hub = await hubWith(repo);
  t.teardown(() => hub.close());
  hub.faults.push(after(hub, weights, 12_000, "cut"), (request, response) => {
    if (request.at !== "cdn") return false;
    response.writeHead(200, { etag: '"other"', "content-length": weights.length }).end(weights);
    return true;
  });
  const { folder } = await fetched(hub, temporary(), "owner/tiny");
  t.deepEqual(readFileSync(join(folder, "model.safetensors")), weights);
});

test("an abort rejects with the signal's reason at once, and the next download continues", async (t) => {
  const repo = tinyRepo();
  const weights = weightsOf(repo);
  const hub = await hubWith(repo);
  t.teardown(() => hub.close());
  const home = temporary();
  hub.faults.push(after(hub, weights, 12_000, "hold"));
  const controller = new AbortController();
  const reason = Object.assign(new Error("enough"), { code: "EMINE" });
  const small = NEEDED.filter((name) => name !== "model.safetensors");
  const before = small.reduce((sum, name) => sum + (repo.files[name] as Buffer).length, 0);
  const held = fetched(hub, home, "owner/tiny", {
    signal: controller.signal,
    onProgress: () => {},
  });
  const blobs = join(home, "hub", "models--owner--tiny", "blobs");
  const partial = (): string | undefined => tree(blobs).find((name) => name.endsWith(".incomplete"));
  while (
    !existsSync(blobs) ||
    statSync(join(blobs, partial() ?? "absent"), { throwIfNoEntry: false })?.size !== 12_000
  )
    await new Promise((look) => setTimeout(look, 5));
  controller.abort(reason);
  t.is(await t.throwsAsync(held), reason);
  t.regex(partial() ?? "", new RegExp(`^${sha256(weights)}\\.lowrank-[0-9a-f]{8}\\.incomplete$`));
  t.deepEqual(tree(join(home, "hub", ".locks", "models--owner--tiny")), []);

  const told: number[] = [];
  const { folder } = await fetched(hub, home, "owner/tiny", { onProgress: ({ bytes }) => told.push(bytes) });
  t.deepEqual(readFileSync(join(folder, "model.safetensors")), weights);
  t.is(hub.sentOf(weights), weights.length);
  t.is(partial(), undefined);
  // Complete files were not counted again.
  t.true(before > 0 && told.every((bytes) => bytes === weights.length));
  const aborted = AbortSignal.abort(reason);
  t.is(await t.throwsAsync(fetched(hub, home, "owner/tiny", { signal: aborted })), reason);
});

test("bytes that differ from the hub's list are removed with an error", async (t) => {
  const repo = tinyRepo();
  const weights = weightsOf(repo);
  const hub = await hubWith(repo);
  t.teardown(() => hub.close());
  const home = temporary();
  const wrong = Buffer.from(weights);
  wrong[20_000] = (wrong[20_000] as number) ^ 1;
  hub.faults.push(({ at }, response) => {
    if (at === "cdn") response.writeHead(200, { "content-length": wrong.length }).end(wrong);
    return at === "cdn";
  });
  await t.throwsAsync(fetched(hub, home, "owner/tiny"), {
    code: "ERR_HUB",
    message: /^owner\/tiny: model\.safetensors was received damaged .* try again$/,
  });
  const place = join(home, "hub", "models--owner--tiny");
  t.deepEqual(
    tree(join(place, "blobs")).filter((name) => name.startsWith(sha256(weights))),
    [],
  );
  t.false(existsSync(join(place, "snapshots", FIRST, "model.safetensors")));
  t.false(existsSync(join(place, "refs")));
  // A small file is checked by git's hash.
  hub.faults.push(({ url }, response) => {
    const tokenizer = url.endsWith("tokenizer.json");
    if (tokenizer)
      response.writeHead(200).end(Buffer.from(repo.files["tokenizer.json"] as Buffer).fill(32, 0, 1));
    return tokenizer;
  });
  await t.throwsAsync(fetched(hub, temporary(), "owner/tiny"), {
    message: /tokenizer\.json was received damaged/,
  });
  // Bytes beyond the listed size are not even written.
  hub.faults.push(({ at }, response) => {
    if (at === "cdn") response.writeHead(200).end(Buffer.concat([weights, weights]));
    return at === "cdn";
  });
  await t.throwsAsync(fetched(hub, temporary(), "owner/tiny"), { message: /is longer than the \d+ bytes/ });
  const { folder } = await fetched(hub, home, "owner/tiny");
  t.deepEqual(readFileSync(join(folder, "model.safetensors")), weights);
});

test("of two simultaneous downloads of a model one fetches it, and the other finds it in the cache", async (t) => {
  const repo = tinyRepo();
  const hub = await hubWith(repo);
  t.teardown(() => hub.close());
  const home = temporary();
  const both = await Promise.all([fetched(hub, home, "owner/tiny"), fetched(hub, home, "owner/tiny")]);
  t.deepEqual(both[0], both[1]);
  t.is(hub.sentOf(weightsOf(repo)), weightsOf(repo).length);
});

test("a private model: the token goes to the hub and to no other server", async (t) => {
  const hub = await hubWith(tinyRepo({ private: true }));
  t.teardown(() => hub.close());
  for (const [options, env] of [
    [{ token: TOKEN }, {}],
    [{}, { HF_TOKEN: `${TOKEN}\n` }],
  ] as const) {
    hub.requests.length = 0;
    await fetched(hub, temporary(), "owner/tiny", options, env);
    t.true(
      hub.requests.filter(({ at }) => at === "hub").every((one) => one.authorization === `Bearer ${TOKEN}`),
    );
    t.is(hub.asked("", "cdn").length, 1);
    t.is(hub.asked("", "cdn")[0]?.authorization, undefined);
  }
  // The token that `hf auth login` has stored.
  const home = temporary();
  writeFileSync(join(home, "token"), TOKEN);
  await fetched(hub, home, "owner/tiny");
  await t.throwsAsync(fetched(hub, temporary(), "owner/tiny"), { message: /needs a token/ });
  await t.throwsAsync(fetched(hub, home, "owner/tiny@other", {}, { HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" }), {
    message: /needs a token/,
  });
});

test("a listing continues on the next page, and sends no token to another server", async (t) => {
  const hub = await hubWith(tinyRepo());
  t.teardown(() => hub.close());
  hub.faults.push(
    ({ url }, response) => {
      const tree = url.includes("/tree/");
      if (tree) response.writeHead(200, { "content-length": 1000 }).write("[", () => response.destroy());
      return tree;
    },
    ({ url }, response) => {
      const second = url.includes("cursor=4");
      const link = `<${hub.cdn}/elsewhere>; rel="next"`;
      if (second) response.writeHead(200, { link }).end("[]");
      return second;
    },
    ({ url }, response) => {
      const elsewhere = url === "/elsewhere";
      if (elsewhere) response.writeHead(200).end("[]");
      return elsewhere;
    },
  );
  await fetched(hub, temporary(), "owner/tiny", { token: TOKEN });
  t.deepEqual(hub.faults, []);
  t.deepEqual(
    hub.asked("/elsewhere").map(({ authorization }) => authorization),
    [undefined],
  );
});

test("without symbolic links a snapshot's files are hard links or copies", async (t) => {
  const repo = tinyRepo();
  const hub = await hubWith(repo);
  t.teardown(() => hub.close());
  const home = temporary();
  const without = { HF_HUB_DISABLE_SYMLINKS: "1" };
  const { folder } = await fetched(hub, home, "owner/tiny", {}, without);
  const file = join(folder, "model.safetensors");
  t.false(lstatSync(file).isSymbolicLink());
  t.is(statSync(file).nlink, 2);
  hub.requests.length = 0;
  await fetched(hub, home, "owner/tiny", {}, without);
  t.deepEqual(hub.asked("resolve"), []);

  const cached = new CachedRepo(join(home, "hub"), "owner/tiny");
  const refusing = async (_blob: string, pointer: string): Promise<void> => {
    await Promise.resolve();
    writeFileSync(pointer, "half");
    throw Object.assign(new Error("no links here"), { code: "EPERM" });
  };
  const { copyFile } = await import("node:fs/promises");
  await cached.addBlob(sha256(weightsOf(repo)), SECOND, "model.safetensors", [refusing, copyFile]);
  const copy = join(cached.locateSnapshot(SECOND), "model.safetensors");
  t.is(statSync(copy).nlink, 1);
  t.deepEqual(readFileSync(copy), weightsOf(repo));
  t.deepEqual(tree(cached.locateSnapshot(SECOND)), ["model.safetensors"]);
});

test("files that another library has downloaded are used, offline too, and missing ones are downloaded", async (t) => {
  const repo = tinyRepo();
  const hub = await hubWith(repo);
  t.teardown(() => hub.close());
  const home = temporary();
  // huggingface_hub's layout: a model without its tokenizer, which was not requested.
  const place = join(home, "hub", "models--owner--tiny");
  for (const folder of ["blobs", "refs", `snapshots/${FIRST}`])
    mkdirSync(join(place, folder), { recursive: true });
  writeFileSync(join(place, "refs", "main"), FIRST);
  for (const name of ["config.json", "model.safetensors"]) {
    const bytes = repo.files[name] as Buffer;
    const blob = (bytes.length < 10_000 ? gitHash : sha256)(bytes);
    writeFileSync(join(place, "blobs", blob), bytes);
    symlinkSync(`../../blobs/${blob}`, join(place, "snapshots", FIRST, name));
  }
  const offline = await fetched(hub, home, "owner/tiny", { offline: true });
  t.deepEqual(offline, { folder: join(place, "snapshots", FIRST), commit: FIRST });
  t.deepEqual(hub.requests, []);
  await fetched(hub, home, `owner/tiny@${FIRST}`);
  t.deepEqual(tree(join(place, "snapshots", FIRST)), NEEDED);
  t.is(hub.sentOf(weightsOf(repo)), 0);
});

test("a busy hub is asked again after the delay that it requests", async (t) => {
  const hub = await hubWith(tinyRepo());
  t.teardown(() => hub.close());
  hub.faults.push(
    ...answers("/revision/", 429, 1, { "retry-after": "1" }),
    ...answers("/tree/", 503, 2, { "retry-after": "0" }),
    ...answers("model.safetensors", 500, 1, { "retry-after": new Date(0).toUTCString() }),
  );
  await fetched(hub, temporary(), "owner/tiny");
  t.deepEqual(hub.faults, []);
  const [asked, again] = hub.asked("/revision/").map(({ when }) => when) as [number, number];
  t.true(again - asked >= 990);
});

test("if the hub is unreachable the cached model is used, with a notice", async (t) => {
  const hub = new Hub({ "owner/tiny": [tinyRepo()] });
  await hub.listen();
  const home = temporary();
  const there = await fetched(hub, home, "owner/tiny");
  hub.faults.push(...answers("/revision/", 502, 5, { "retry-after": "0" }));
  const said: string[] = [];
  const onNotice = (text: string): void => void said.push(text);
  t.deepEqual(await fetched(hub, home, "owner/tiny", { onNotice }), there);
  hub.close();
  t.deepEqual(await fetched(hub, home, "owner/tiny", { onNotice }), there);
  t.is(said.length, 2);
  t.regex(said[0] ?? "", /^owner\/tiny: .* \(status 502\); taking commit 1111111, which is in the cache$/);
  t.regex(said[1] ?? "", /cannot be reached \(ECONNREFUSED\); taking commit 1111111/);
});
