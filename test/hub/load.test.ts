/** A hub's models in the library and on the command line: loaded by name, trained, resumed, used for generation. */
import { cpSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { DownloadLine } from "../../src/cli/options/hub.js";
import { createHumanRenderer } from "../../src/cli/finetune/render.js";
import { finetune, loadModel, lora, LowrankError, tensor, type TrainEvent } from "../../src/index.js";
import { lowrank, ONE_LINE, runHere } from "../cli/lowrank.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { environment, FIRST, hubWith, SECOND, tinyRepo } from "./models.js";
import type { Hub } from "./server.js";

const device = "cpu";
const folder = tinyModel();
const data = tinyData();
const first = tinyRepo({ revisions: ["v1"] });
/** The same model, trained further by its owner. */
const weights = Buffer.from(first.files["model.safetensors"] as Buffer);
weights.writeFloatLE(3, weights.length - 4);
const second = tinyRepo({ commit: SECOND, files: { ...first.files, "model.safetensors": weights } });
let hub: Hub;

test.before(async () => {
  hub = await hubWith(second, first);
  Object.assign(process.env, environment(hub, temporary()));
});
test.after.always(() => hub.close());

async function logitsOf(path: string): Promise<number[]> {
  const model = await loadModel<"causal-lm">(path, { device });
  const ids = tensor(Int32Array.of(5, 6, 7), { shape: [1, 3], device });
  const values = [...(await model.forward(ids).logits.data())];
  model.dispose();
  return values;
}

const json = (...path: string[]): Record<string, unknown> =>
  JSON.parse(readFileSync(join(...path), "utf8")) as Record<string, unknown>;

test.serial(
  "a model loaded by name equals its folder, and its adapter records name and commit",
  async (t) => {
    t.deepEqual(await logitsOf("owner/tiny@v1"), await logitsOf(folder));
    t.notDeepEqual(await logitsOf("owner/tiny"), await logitsOf(folder));
    const model = await loadModel<"causal-lm">("owner/tiny", { device, revision: "v1" });
    t.deepEqual([model.source, model.revision], ["owner/tiny", FIRST]);
    await lora.inject(model, { r: 2 });
    const [adapter, converted] = [temporary(), join(temporary(), "peft")];
    await lora.saveAdapter(model, adapter);
    await lora.convertAdapter(adapter, converted, { format: "peft" });
    for (const dir of [adapter, converted]) {
      const { base_model_name_or_path: base, revision } = json(dir, "adapter_config.json");
      t.deepEqual([base, revision], ["owner/tiny", FIRST]);
    }
    model.dispose();
    const local = await loadModel<"causal-lm">(folder, { device });
    t.deepEqual([local.source, local.revision], [folder, undefined]);
    await lora.inject(local, { r: 2 });
    await lora.saveAdapter(local, adapter);
    t.deepEqual(json(adapter, "adapter_config.json")["revision"], null);
    local.dispose();
  },
);

test.serial("a folder of that name takes precedence", async (t) => {
  const [here, there] = [process.cwd(), temporary()];
  mkdirSync(join(there, "owner"));
  cpSync(folder, join(there, "owner", "tiny"), { recursive: true });
  process.chdir(there);
  t.teardown(() => process.chdir(here));
  hub.requests.length = 0;
  const model = await loadModel<"causal-lm">("owner/tiny", { device });
  t.is(model.revision, undefined);
  model.dispose();
  await t.throwsAsync(loadModel("owner/tiny", { device, revision: "v1" }), {
    code: "ERR_OPTION",
    message:
      /^owner\/tiny: a revision of a model on this machine \(\w+\): only a model of a hub has one; leave it out$/,
  });
  t.deepEqual(hub.requests, []);
});

test.serial("options of the wrong type are refused before any request", async (t) => {
  hub.requests.length = 0;
  for (const [name, value] of Object.entries({
    revision: 3,
    token: "",
    offline: "yes",
    cacheDir: null,
    onProgress: LowrankError,
  }))
    await t.throwsAsync(loadModel("owner/tiny", { [name]: value } as object), {
      code: "ERR_OPTION",
      message: new RegExp(`^loadModel: ${name} must be `),
    });
  t.deepEqual(hub.requests, []);
});

const TRAINED = {
  data,
  device,
  lora: { r: 2 },
  batchSize: 2,
  gradientAccumulation: 1,
  maxLength: 32,
} as const;

test.serial(
  "a run takes a model by its name, reports its download, and resumes with the same commit",
  async (t) => {
    const output = join(temporary(), "out");
    hub.repos["owner/tiny"] = [{ ...first, revisions: ["main"] }];
    process.env["HF_HOME"] = temporary();
    const events: TrainEvent[] = [];
    const run = finetune({ ...TRAINED, model: "owner/tiny", output, steps: 4, saveEvery: 2 });
    for await (const event of run) events.push(event);
    const downloads = events.flatMap((event) =>
      event.type === "progress" && event.stage === "download" ? [event] : [],
    );
    t.true(downloads.length > 0 && downloads.every(({ file }) => file.startsWith("owner/tiny/")));
    t.is(downloads.at(-1)?.bytesRead, downloads.at(-1)?.bytes as number);
    t.like(
      events.find(({ type }) => type === "start"),
      { model: "owner/tiny" },
    );
    t.like(json(output, "adapter_config.json"), { base_model_name_or_path: "owner/tiny", revision: FIRST });
    const { model, revision, offline } = json(output, "run.json")["options"] as Record<string, unknown>;
    t.deepEqual([model, revision, offline], ["owner/tiny", FIRST, undefined]);

    // Its owner has changed it in the meantime.
    hub.repos["owner/tiny"] = [second, first];
    hub.requests.length = 0;
    const again = finetune({ resume: output, steps: 6 });
    t.is((await again.result).steps, 6);
    t.deepEqual(hub.requests, []);
    await t.throwsAsync(finetune({ resume: output, steps: 8, model: "owner/tiny" }).result, {
      code: "ERR_OPTION",
      message: /^resume: owner\/tiny: the model differs from the interrupted run's/,
    });
    t.is((await finetune({ resume: output, steps: 8, model: folder }).result).steps, 8);

    const loaded = await loadModel<"causal-lm">("owner/tiny@v1", { device });
    await t.throwsAsync(finetune({ ...TRAINED, model: loaded, revision: "v1" }).result, {
      code: "ERR_OPTION",
      message: /^finetune: revision and offline with a model that is loaded: .*; leave them out$/,
    });
    const from = join(temporary(), "out");
    await finetune({ ...TRAINED, model: loaded, output: from, steps: 2 }).result;
    loaded.dispose();
    const same = json(from, "run.json");
    t.like(same["options"], { model: "owner/tiny", revision: FIRST });
    t.deepEqual(same["identities"], json(output, "run.json")["identities"]);
  },
);

test.serial("the command line: a model by its name, and by the base model of an adapter", async (t) => {
  process.env["HF_HOME"] = temporary();
  const output = join(temporary(), "out");
  const trained = await runHere(
    ...["finetune", "--model", "owner/tiny@v1", "--data", data, "--output", output, "--device", device],
    ...["--steps", "2", "--grad-accum", "1", "--max-length", "32", "--rank", "2"],
  );
  t.is(trained.status, 0, trained.stderr);
  t.regex(trained.stdout, /^downloading owner\/tiny, \d+\.\d KiB\n {2}model +owner\/tiny \(llama\)/);
  hub.requests.length = 0;
  const text = ["--prompt", "the", "--max-tokens", "3", "--device", device];
  const written = await runHere("generate", "--adapter", output, ...text, "--offline");
  t.is(written.status, 0, written.stderr);
  t.is(written.stderr, "");
  const online = await runHere("generate", "--adapter", output, ...text);
  t.deepEqual(online, written);
  t.deepEqual(hub.requests, []);
  const merged = await runHere("merge", "--adapter", output, "--output", join(temporary(), "merged"));
  t.is(merged.status, 0, merged.stderr);

  const other = await runHere("evaluate", "--model", "owner/tiny", "--data", data, "--device", device);
  t.is(other.status, 0, other.stderr);
  t.regex(other.stderr, /^lowrank: downloading owner\/tiny, \d+\.\d KiB\n$/);
  const absent = await runHere("generate", "--model", "owner/absent", ...text);
  t.deepEqual([absent.status, absent.stdout], [1, ""]);
  t.regex(absent.stderr, ONE_LINE);
  process.env["HF_HOME"] = temporary();
  const evaluate = ["evaluate", "--model", "owner/tiny", "--data", data, "--device", device];
  const offline = await runHere(...evaluate, "--offline");
  t.is(offline.status, 1);
  t.regex(
    offline.stderr,
    /^lowrank: owner\/tiny: is not in the cache .*; download it once without --offline and HF_HUB_OFFLINE\n$/,
  );
  t.is((await runHere(...evaluate)).status, 0);
  const cached = await runHere(...evaluate, "--offline");
  t.is(cached.status, 0, cached.stderr);
  const usage = await runHere(
    "export",
    "--adapter",
    output,
    "--format",
    "peft",
    "--output",
    "x",
    "--revision",
    "v1",
  );
  t.deepEqual(
    [usage.status, usage.stderr],
    [
      2,
      "lowrank: --revision and --offline of export without --model: they select the files of a hub model; give --model, or leave them out\n",
    ],
  );
});

test.serial("a full disk: one line, and the next download continues from the received bytes", async (t) => {
  const large = tinyRepo();
  large.files["model.safetensors"] = Buffer.concat([weights, Buffer.alloc(3 << 20, 7)]);
  hub.repos["owner/large"] = [large];
  const home = temporary();
  const argv = ["generate", "--model", "owner/large", "--prompt", "a", "--device", device];
  // Shells use blocks of 512 or 1024 bytes: at most 2 MiB a file, and enough for all other files.
  const env = { HF_HOME: home, TSX_DISABLE_CACHE: "1" };
  const full = await lowrank(argv, { env, shell: "ulimit -f 2048" });
  t.is(full.status, 1, full.stderr);
  t.regex(
    full.stderr,
    /^lowrank: downloading owner\/large, \d\.\d MiB\nlowrank: \S+blobs\S+: cannot be written \(EFBIG\): free space, or move the cache with HF_HOME; the received part is kept[^\n]*\n$/,
  );
  const file = large.files["model.safetensors"];
  hub.requests.length = 0;
  hub.sent.clear();
  await lowrank(argv, { env });
  const { range = "" } = hub.asked("", "cdn")[0] ?? {};
  t.regex(range, /^bytes=\d{7}-$/);
  t.is(hub.sentOf(file), file.length - Number(range.slice(6, -1)));
  rmSync(home, { recursive: true });
});

test("a download is a live line on a terminal, and a line elsewhere", (t) => {
  const progress = { model: "owner/tiny", file: "model.safetensors", bytesRead: 512 << 20, bytes: 2 ** 31 };
  let [live, plain, log] = ["", "", ""];
  const onTerminal = new DownloadLine({
    isTTY: true,
    columns: 70,
    write: (text: string) => ((live += text), true),
  });
  onTerminal.show(progress);
  t.true(
    live.startsWith("\r\u001b[2K") && live.includes("downloading model.safetensors ·  25% of 2.0 GiB"),
    live,
  );
  t.true(live.includes("█"));
  onTerminal.end();
  t.true(live.endsWith("\r\u001b[2K"));
  const elsewhere = new DownloadLine({ write: (text: string) => ((plain += text), true) });
  for (let i = 0; i < 3; i++) elsewhere.show(progress);
  elsewhere.end();
  t.is(plain, "lowrank: downloading owner/tiny, 2.0 GiB\n");
  const render = createHumanRenderer({ write: (text: string) => ((log += text), true) });
  for (const file of ["owner/tiny/config.json", "owner/tiny/model.safetensors"])
    render({ type: "progress", stage: "download", file, bytesRead: 0, bytes: 2 ** 31, tokens: 0 });
  t.is(log, "downloading owner/tiny, 2.0 GiB\n");
});
