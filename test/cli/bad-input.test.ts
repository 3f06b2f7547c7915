/** All kinds of invalid user input: one line, status 1, no partial files. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";

import test from "ava";

import { temporary, tinyData, tinyModel } from "../hashed.js";
import { lowrank, ONE_LINE, runHere, withDefaults } from "./lowrank.js";

const whole = tinyModel();
const data = tinyData();
const room = temporary();
let made = 0;

/** Returns an unused path in the test's folder. */
function fresh(name: string): string {
  return join(room, `${made++}-${name}`);
}

function dataFile(name: string, content: string | Uint8Array): string {
  const file = fresh(name);
  writeFileSync(file, content);
  return file;
}

/** Copies the valid model and changes the copy. */
function model(change: (folder: string) => void): string {
  const folder = fresh("model");
  cpSync(whole, folder, { recursive: true });
  change(folder);
  return folder;
}

const without = (file: string): string => model((folder) => rmSync(join(folder, file)));
const holding = (file: string, text: string): string =>
  model((folder) => writeFileSync(join(folder, file), text));

/** Returns a model with changed fields in a JSON file. */
function edited(file: string, edit: (json: Record<string, unknown>) => void): string {
  return model((folder) => {
    const json = JSON.parse(readFileSync(join(folder, file), "utf8")) as Record<string, unknown>;
    edit(json);
    writeFileSync(join(folder, file), JSON.stringify(json));
  });
}

const config = (fields: Record<string, unknown>): string =>
  edited("config.json", (json) => Object.assign(json, fields));

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

const bytes = readFileSync(join(whole, "model.safetensors"));
const weights = (content: Uint8Array): string =>
  model((folder) => writeFileSync(join(folder, "model.safetensors"), content));

/** Returns a model with another header for the same data; `extra` bytes of data follow. */
function header(change: (tensors: Record<string, Entry>, end: number) => void, extra = 0): string {
  const length = Number(bytes.readBigUInt64LE(0));
  const tensors = JSON.parse(bytes.subarray(8, 8 + length).toString()) as Record<string, Entry>;
  const body = bytes.subarray(8 + length);
  change(tensors, body.length);
  const text = Buffer.from(JSON.stringify(tensors));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(text.length));
  return weights(Buffer.concat([prefix, text, body, Buffer.alloc(extra)]));
}

const Q = "model.layers.0.self_attn.q_proj.weight";
const entry = (change: (entry: Entry, end: number) => void): string =>
  header((tensors, end) => change(tensors[Q] as Entry, end));

/** Returns a file of weights whose header claims an impossible length. */
function longHeader(): string {
  const content = Buffer.from(bytes);
  content.writeBigUInt64LE(10n ** 12n);
  return weights(content);
}

function run(...more: string[]): string[] {
  const defaults = { device: "cpu", steps: "2", "batch-size": "2", model: whole, data, output: fresh("out") };
  return withDefaults(["finetune", ...more], defaults);
}

const badData: [string, RegExp][] = [
  [join(room, "absent.txt"), /absent\.txt: no such data file/],
  [room, /is a folder, and a data file was expected/],
  [dataFile("data.doc", "a,b"), /the name ends in \.doc, which is not a data format/],
  [dataFile("data.csv", "a,b"), /data\.csv:1: the first line has no name of a field \(it has "a", "b"\)/],
  [dataFile("empty.txt", ""), /empty\.txt: the file is empty/],
  [dataFile("blank.txt", " \n\n"), /blank\.txt: the file has no text/],
  [dataFile("blank.jsonl", "\n\n"), /blank\.jsonl: the file has no rows/],
  [dataFile("rows.jsonl", '{"text":"a"}\n\n{"text":'), /rows\.jsonl:3: not JSON/],
  [dataFile("rows.jsonl", '{"text":"a"}\n{"txt":"b"}'), /rows\.jsonl:2: the field "text" is missing/],
  [dataFile("rows.jsonl", '{"prompt":"a"}'), /rows\.jsonl:1: the field "completion" is missing/],
  [
    dataFile("rows.jsonl", '{"text":"a"}\n{"text":"\\ud83d"}'),
    /rows\.jsonl:2: "text" has half of a surrogate pair/,
  ],
  [dataFile("data.txt", Buffer.from([0x1f, 0x8b, 8, 0])), /is compressed by gzip; unpack it first/],
  [dataFile("data.txt", "a\nb\0c"), /data\.txt:2: a NUL byte at byte 3/],
  [dataFile("bytes.txt", Buffer.from([97, 10, 0xff])), /bytes\.txt:2: invalid UTF-8 at byte 2/],
];

const badModels: [string, RegExp][] = [
  [join(room, "absent"), /absent: there is no such model/],
  [without("config.json"), /config\.json: no such file/],
  [without("model.safetensors"), /neither model\.safetensors nor model\.safetensors\.index\.json/],
  [
    model((folder) => renameSync(join(folder, "model.safetensors"), join(folder, "pytorch_model.bin"))),
    /its weights are in pytorch_model\.bin, which is not read; convert them to model\.safetensors: .*save_pretrained/,
  ],
  [without("tokenizer.json"), /has no tokenizer\.json/],
  [holding("config.json", "{"), /config\.json: not JSON/],
  [holding("config.json", "[]"), /config\.json: a JSON object was expected/],
  [holding("tokenizer.json", "{"), /tokenizer\.json: not a tokenizer\.json/],
  [config({ model_type: "mamba" }), /model_type "mamba" is not supported; supported are llama/],
  [config({ hidden_size: 1e12 }), /hidden_size must be an integer from 1 to \d+, got 1000000000000/],
  [config({ num_hidden_layers: 1e9 }), /num_hidden_layers must be an integer from 1 to/],
  [config({ vocab_size: 1e15 }), /vocab_size must be an integer from 1 to/],
  [config({ max_position_embeddings: 1e15 }), /max_position_embeddings must be an integer from 1 to/],
  [config({ hidden_size: -1 }), /hidden_size must be/],
  [config({ num_attention_heads: 0 }), /num_attention_heads must be/],
  [
    edited(
      "tokenizer.json",
      (json) => ((json["model"] as { vocab: Record<string, number> }).vocab["t"] = 5000),
    ),
    /data\.jsonl:1: the tokenizer returned the id 5000, but the model's ids end at \d+/,
  ],
  [weights(new Uint8Array()), /model\.safetensors: at byte 0: cut off/],
  [weights(bytes.subarray(0, 50)), /model\.safetensors: at byte 50: cut off/],
  [weights(bytes.subarray(0, bytes.length - 100)), /cut off\?/],
  [longHeader(), /a header of at most 100000000 bytes was expected/],
  [entry((one) => (one.data_offsets = one.data_offsets.map((at) => at - 4) as [number, number])), /overlaps/],
  [entry((one, end) => (one.data_offsets = [end, end + 4096])), /offset \d+ was expected/],
  [header(() => {}, 8), /the file's end was expected, 8 bytes follow/],
  [entry((one) => (one.dtype = "F7")), /unknown dtype "F7"/],
  [
    entry((one) => (one.shape = [16, 64])),
    /q_proj\.weight is \[16, 64\], the configuration expects \[32, 32\]/,
  ],
  [
    header((tensors) => {
      tensors["other"] = tensors[Q] as Entry;
      delete tensors[Q];
    }),
    /missing: model\.layers\.0\.self_attn\.q_proj\.weight; not of this model: other/,
  ],
];

const badOptions: [string[], RegExp][] = [
  [["--rank", "1000000000"], /inject: \d+ bytes are asked for, and \d+ are free on .*; take a lower rank/],
  [["--targets", "nothing"], /\[nothing\] matches no layer.*q_proj/],
  [["--device", "gpu:99"], /no GPU number 99; (there are cpu, gpu:0|no driver)/],
  [["--resume"], /there is no such folder to resume from/],
];

const cases: [string[], RegExp][] = [
  ...badData.map(([file, message]): [string[], RegExp] => [["--data", file], message]),
  ...badModels.map(([folder, message]): [string[], RegExp] => [["--model", folder], message]),
  ...badOptions,
];

for (const [more, message] of cases) {
  test.serial(`${more.join(" ").replaceAll(room, "")}: ${message.source}`, async (t) => {
    const argv = run(...more);
    const { status, stdout, stderr } = await runHere(...argv);
    t.is(status, 1);
    t.is(stdout, "");
    t.regex(stderr, ONE_LINE);
    t.regex(stderr, message);
    t.false(existsSync(argv[argv.indexOf("--output") + 1] as string));
  });
}

test.serial(
  "an output that is a file, is below one, cannot be written or contains another run",
  async (t) => {
    const file = dataFile("file", "kept");
    const other = fresh("other");
    mkdirSync(other);
    writeFileSync(join(other, "adapter_config.json"), "{}");
    const outputs: [string, RegExp][] = [
      [file, /is a file or below one/],
      [join(file, "below"), /is a file or below one/],
      [other, /adapter_config\.json: was not written by a run; move it away, or choose another folder/],
    ];
    if (process.platform === "linux") outputs.push(["/proc/none/out", /cannot be written/]);
    for (const [output, message] of outputs) {
      const { status, stdout, stderr } = await runHere(...run("--output", output));
      t.is(status, 1, output);
      t.is(stdout, "");
      t.regex(stderr, ONE_LINE);
      t.regex(stderr, message);
    }
    t.is(readFileSync(file, "utf8"), "kept");
    t.deepEqual(readdirSync(other), ["adapter_config.json"]);
  },
);

test.serial("known extras are named once in a notice, and the run continues", async (t) => {
  const folder = header((tensors, end) => {
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {
      dtype: "F32",
      shape: [1],
      data_offsets: [end, end + 4],
    };
  }, 4);
  const { status, stderr } = await runHere(...run("--model", folder));
  t.is(status, 0);
  t.is(stderr.match(/inv_freq/g)?.length, 1);
});

/** Returns a model with one value of a weight replaced. */
function withWeight(value: number): string {
  const content = Buffer.from(bytes);
  const length = Number(bytes.readBigUInt64LE(0));
  const tensors = JSON.parse(bytes.subarray(8, 8 + length).toString()) as Record<string, Entry>;
  content.writeFloatLE(value, 8 + length + (tensors[Q] as Entry).data_offsets[0]);
  return weights(content);
}

test.serial(
  "weights that f16 cannot represent are refused by name, and a loss that is NaN is an error",
  async (t) => {
    const large = run("--model", withWeight(-70_000), "--dtype", "f16");
    const half = await runHere(...large);
    t.is(half.status, 1);
    t.regex(half.stderr, ONE_LINE);
    t.regex(
      half.stderr,
      /q_proj\.weight contains 70000, beyond f16's maximum of 65,504; store it as bf16 or f32/,
    );
    const fits = await runHere(...run("--model", withWeight(65_000), "--dtype", "f16", "--steps", "1"));
    t.notRegex(fits.stderr, /f16 ends/);
    const evaluate = ["evaluate", "--device", "cpu", "--model", withWeight(NaN), "--data", data];
    const lost = await runHere(...evaluate);
    t.is(lost.status, 1);
    t.is(lost.stdout, "");
    t.regex(lost.stderr, ONE_LINE);
    t.regex(lost.stderr, /evaluate: the loss over \d+ rows is NaN/);
  },
);

test.serial("truncated rows and a lowered max-length are reported, as text and as events", async (t) => {
  const rows = ["ab", "x".repeat(70), "y".repeat(300)].map((text) => JSON.stringify({ text }));
  rows.push(JSON.stringify({ prompt: "z".repeat(90), completion: "c" }));
  const argv = run("--data", dataFile("long.jsonl", rows.join("\n")), "--max-length", "100", "--json");
  const { status, stdout, stderr } = await runHere(...argv);
  t.is(status, 0, stderr);
  const events = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { type: string; message?: string; data?: object[] });
  const told = events.filter(({ type }) => type === "warning").map(({ message }) => message ?? "");
  t.regex(told[0] ?? "", /^--max-length is 100, but the model reads at most 64 tokens/);
  t.regex(
    told[1] ?? "",
    /2 of 4 rows are longer than 64 tokens and truncated \(first line 2\), 1 of them by more .*; the model reads at most 64 tokens, so split or shorten such rows$/,
  );
  t.regex(told[2] ?? "", /1 of 4 rows is skipped \(first line 4\): nothing to train on within 64 tokens/);
  t.like(events.find(({ type }) => type === "start")?.data?.[0], {
    rows: 4,
    cut: 2,
    mostlyCut: 1,
    dropped: 1,
  });
  const human = await runHere(...argv.filter((one) => one !== "--json"), "--yes");
  t.is(human.stderr.match(/^lowrank: warning: /gm)?.length, 3, human.stderr);
});

test.serial("standard input is read like a file", async (t) => {
  const rows = Array.from({ length: 12 }, (_, i) => JSON.stringify({ text: `row ${i} of them` })).join("\n");
  const file = dataFile("rows.jsonl", rows);
  const losses = async (more: string[], shell?: string): Promise<unknown[]> => {
    const options = shell === undefined ? {} : { shell };
    const { status, stdout, stderr } = await lowrank(run("--json", "--eval-split", "0.25", ...more), options);
    t.is(status, 0, stderr);
    return stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { type: string; loss?: number })
      .flatMap(({ type, loss }) => (type === "step" || type === "eval" ? [loss] : []));
  };
  const expected = await losses(["--data", file]);
  t.true(expected.length >= 4);
  t.deepEqual(await losses(["--data", "-", "--data-format", "jsonl"], `exec < ${file}`), expected);
});

test.serial("a loss that is not finite names the last checkpoint whose own loss was finite", async (t) => {
  const output = fresh("out");
  const first = run("--lr", "1e-12", "--steps", "1", "--save-every", "1", "--output", output);
  t.is((await runHere(...first)).status, 0);
  const adapter = join(output, "adapter_model.safetensors");
  const finished = readFileSync(adapter);
  const { status, stderr } = await runHere("finetune", "--resume", output, "--lr", "1e30", "--steps", "20");
  t.is(status, 1);
  // Resuming warns about the options that differ.
  t.regex(stderr, /^(lowrank: warning: resume: [^\n]+\n){3}lowrank: [^\n]+\n$/);
  const [, step, kept] = /step (\d+): .*checkpoint is (\S+); try a lower learning rate/.exec(stderr) ?? [];
  // The newest checkpoint contains the weights whose loss is not finite.
  t.is(kept, join(output, `checkpoint-${Number(step) - 2}`));
  t.true(existsSync(join(output, `checkpoint-${Number(step) - 1}`)));
  t.true(existsSync(kept as string));
  // The adapter of the finished run is kept.
  t.deepEqual(readFileSync(adapter), finished);
});

test.serial("files in the working directory are named without a folder", async (t) => {
  const before = process.cwd();
  const runIn = async (folder: string, ...argv: string[]): ReturnType<typeof runHere> => {
    process.chdir(folder);
    try {
      return await runHere(...argv);
    } finally {
      process.chdir(before);
    }
  };
  const { status, stderr } = await runIn(whole, ...run("--model", "model.safetensors"));
  t.is(status, 0, stderr);
  const wrong = await runIn(dirname(data), ...run("--model", basename(data)));
  t.is(wrong.status, 1);
  t.regex(wrong.stderr, ONE_LINE);
  t.true(
    wrong.stderr.startsWith(`lowrank: ${basename(data)}: not a model; give a model's folder`),
    wrong.stderr,
  );
});

if (process.platform === "linux") {
  test.serial("on a full disk no partial file is left", async (t) => {
    const [out, steps, merged] = [fresh("out"), fresh("steps"), fresh("merged")];
    // No file may exceed 8 blocks of at most 1,024 bytes, which a writer cannot distinguish from a full disk.
    const full = { shell: "ulimit -f 8" };
    const trained = fresh("trained");
    t.is((await runHere(...run("--rank", "2", "--output", trained))).status, 0);
    for (const argv of [
      run("--rank", "32", "--output", out),
      run("--rank", "32", "--save-every", "1", "--output", steps),
      ["merge", "--adapter", trained, "--output", merged],
    ]) {
      const { status, stderr } = await lowrank(argv, full);
      t.is(status, 1);
      // The adapter is large because of a rank above the useful one, which is reported.
      t.regex(stderr.replace(/^lowrank: warning: --rank is above the width .*\n/, ""), ONE_LINE);
      t.regex(stderr, /cannot be written: .*; free some space, or choose another folder/);
    }
    for (const folder of [out, steps, merged]) t.false(existsSync(folder), folder);
    t.deepEqual(
      readdirSync(room).filter((name) => name.includes(".tmp-")),
      [],
    );
  });

  test.serial("a full stdout is reported in one line", async (t) => {
    const { status, stderr } = await lowrank(["devices"], { shell: "exec >/dev/full" });
    t.is(status, 1);
    t.is(stderr, "lowrank: stdout cannot be written (ENOSPC)\n");
  });

  test.serial(
    "a GPU that is missing is an error that lists the present ones, and never falls back to the CPU",
    async (t) => {
      const none = { VK_ICD_FILENAMES: "/nowhere.json", VK_DRIVER_FILES: "/nowhere.json" };
      for (const argv of [
        run("--device", "gpu"),
        ["generate", "--model", whole, "--prompt", "a", "--device", "gpu"],
      ]) {
        const { status, stdout, stderr } = await lowrank(argv, { env: none });
        t.is(status, 1);
        t.is(stdout, "");
        t.regex(stderr, ONE_LINE);
        t.regex(stderr, /no usable GPU; .*cpu/);
      }
    },
  );
}
