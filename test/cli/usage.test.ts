import { writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { temporary } from "../hashed.js";
import { ONE_LINE, runHere as run } from "./lowrank.js";

const folder = temporary();

function yaml(text: string): string {
  const file = join(folder, `${Math.random()}.yaml`);
  writeFileSync(file, text);
  return file;
}

const wrong: [string[], RegExp][] = [
  [
    [],
    /give a command, one of finetune, generate, chat, evaluate, predict, serve, merge, export, inspect, estimate, sweep, runs, devices, doctor/,
  ],
  [["tune"], /unknown command "tune"; use one of finetune, /],
  [["fintune"], /unknown command "fintune" \(did you mean finetune\?\)/],
  [["help", "evalute"], /unknown command "evalute" \(did you mean evaluate\?\)/],
  [
    ["finetune", "--device", "gpux"],
    /Unknown device "gpux" \(did you mean gpu\?\); use auto, cpu, gpu or gpu:N/,
  ],
  [
    ["finetune", "--schedule", "cosin"],
    /Allowed choices are linear, cosine, constant \(did you mean cosine\?\)/,
  ],
  [["finetune", "--init", "oloar"], /got "oloar" \(did you mean olora\?\)/],
  [["finetune", "--batchSize", "2"], /unknown option '--batchSize' \(Did you mean --batch-size\?\)/],
  [["doctor", "--device", "gpux"], /Unknown device "gpux" \(did you mean gpu\?\)/],
  [["doctor", "--fast"], /unknown option '--fast'/],
  [["devices", "--tuned"], /unknown option '--tuned' \(Did you mean --tune\?\)/],
  [
    ["generate", "--prompt", "a", "--logprobs"],
    /--logprobs of generate without --json: .*; give --json, too/,
  ],
  [["generate", "--prompt", "a", "--json", "--logprobs", "-1"], /--logprobs.*at least 0/],
  [["runs", "--dashboard", "--json"], /--dashboard of runs with --json: .*; give one of them/],
  [["devices", "--device", "gpu"], /--device of devices without --tune: .*; give --tune, too/],
  [["devices", "--tune", "--device", "cuda"], /Unknown device "cuda"; use auto, cpu, gpu or gpu:N/],
  [["finetune", "--rnk", "3"], /unknown option '--rnk' \(Did you mean --rank\?\)/],
  [["finetune", "--rank"], /argument missing/],
  [["finetune", "extra"], /too many arguments/],
  [["finetune", "--rank", "0"], /--rank <n>.*at least 1, got 0/],
  [["finetune", "--rank", "1.5"], /a whole number/],
  [["finetune", "--threads", "0"], /--threads <n>.*at least 1, got 0/],
  [["generate", "--prompt", "a", "--threads", "1.5"], /--threads <n>.*at least 1, got 1\.5/],
  [["evaluate", "--data", "a.jsonl", "--threads", "-1"], /--threads <n>.*at least 1, got -1/],
  [
    ["finetune", "--priority", "backgruond"],
    /Allowed choices are normal, background \(did you mean background\?\)/,
  ],
  [["serve", "--priority", "low"], /Allowed choices are normal, background\./],
  [["finetune", "--rank", "-1"], /at least 1, got -1/],
  [["finetune", "--alpha", "NaN"], /"NaN" is not a number/],
  [["finetune", "--lr", "Infinity"], /"Infinity" is not a finite number/],
  [["finetune", "--lr", "NaN"], /"NaN" is not a number/],
  [["finetune", "--lr", "-1"], /above 0/],
  [["finetune", "--dropout", "1"], /from 0 to below 1/],
  [["finetune", "--label-smoothing", "1"], /from 0 to below 1/],
  [["finetune", "--steps", ""], /"" is not a number/],
  [["finetune", "--seed", "-3"], /at least 0/],
  [["finetune", "--schedule", "fast"], /Allowed choices are linear, cosine, constant/],
  [["finetune", "--dtype", "i32"], /Allowed choices are f32, f16, bf16/],
  [["finetune", "--device", "cuda"], /Unknown device "cuda"; use auto, cpu, gpu or gpu:N/],
  [["finetune", "--targets", "a,,b"], /list of names/],
  [["finetune", "--init", "loftq"], /loftq is not supported; there are true, false, gaussian/],
  [["finetune", "--init", "best"], /one of true, false, gaussian/],
  [["finetune", "--loraplus-ratio", "0"], /above 0/],
  [["finetune", "--data", "d.txt", "--steps", "3", "--epochs", "2"], /one of --steps and --epochs/],
  [
    ["finetune", "--data", "d.txt", "--eval-data", "e", "--eval-split", "0.1"],
    /--eval-data and --eval-split/,
  ],
  [["finetune", "--data", "d.txt", "--eval-every", "5"], /--eval-every needs/],
  [["finetune", "--data", "d.txt", "--resume", "--yes"], /--resume continues the run/],
  [["finetune", "--model", "m"], /--model needs --data/],
  [["finetune", "--profile"], /argument missing/],
  [["generate", "--prompt", "a", "--dtype", "i32"], /--dtype <type>.*Allowed choices are f32, f16, bf16/],
  [["chat", "--quantize", "q4"], /--quantize <type>.*Allowed choices are q8_0, q4_0, q4_k, nf4/],
  [["finetune", "--memory", "2 gigs"], /--memory <size>.*a size, such as 2GB or 500MB, or auto/],
  [["estimate", "--memory", "0"], /a size, such as 2GB or 500MB, or auto/],
  [["estimate", "--model", "m"], /--model needs --data/],
  [["finetune", "--quantize", "q6_k"], /Allowed choices are q8_0, q4_0, q4_k, nf4/],
  [["evaluate", "--data", "d.txt", "--dtype", "half"], /--dtype <type>.*Allowed choices are f32, f16, bf16/],
  [["generate", "--prompt", "a", "--min-p", "1.1"], /--min-p <p>.*from 0 to 1, got 1\.1/],
  [["generate", "--prompt", "a", "--repetition-penalty", "0"], /--repetition-penalty <r>.*above 0, got 0/],
  [
    ["generate", "--prompt", "a", "--frequency-penalty", "1e7"],
    /--frequency-penalty <p>.*from -1000000 to 1000000, got 1e7/,
  ],
  [["chat", "--presence-penalty", "much"], /--presence-penalty <p>.*"much" is not a number/],
  [
    ["generate", "--prompt", "a", "--logit-bias", "whale=1"],
    /--logit-bias <id=bias>.*a token id and a number, such as 15=-100, got whale=1/,
  ],
  [["generate", "--prompt", "a", "--logit-bias", "5=low"], /--logit-bias <id=bias>.*"low" is not a number/],
  [
    ["generate", "--prompt", "a", "--logit-bias", "5=1", "--logit-bias", "5=2"],
    /--logit-bias <id=bias>.*Token 5 is given twice; give it once/,
  ],
  [["generate"], /generate needs --prompt TEXT or --messages FILE/],
  [["generate", "--prompt", "a", "--messages", "[]"], /--prompt with --messages: .*; give one of them/],
  [["inspect"], /missing required argument 'path'/],
  [["inspect", "d.jsonl", "--rows", "-1"], /--rows <n>.*at least 0/],
  [["predict", "--text", "a"], /predict needs --adapter DIR or --model NAME/],
  [["predict", "--model", "m"], /predict needs --data FILE or --text TEXT, and not both/],
  [["predict", "--model", "m", "--data", "d.txt", "--text", "a"], /--data FILE or --text TEXT, and not both/],
  [
    ["predict", "--model", "m", "--data", "d.docx"],
    /the name of d\.docx says no format of data; give --data-format txt, jsonl, ndjson, json, csv, parquet/,
  ],
  [["predict", "--model", "m", "--data", "-"], /standard input has no name; give --data-format/],
  [["predict", "--model", "m", "--data", "d", "--data-format", "docx"], /Allowed choices are txt, jsonl/],
  [["predict", "--model", "m", "--text", "a", "--top-k", "0"], /--top-k <n>.*at least 1/],
  [["predict", "--model", "m", "--text", "a", "--max-length", "1"], /--max-length <n>.*at least 2/],
  [["serve", "--port", "70000"], /--port <n>.*a port, from 0 to 65535/],
  [["serve", "--max-tokens", "0"], /--max-tokens <n>.*at least 1/],
  [["serve", "--max-concurrent", "0"], /--max-concurrent <n>.*at least 1/],
  [["serve", "--max-queue", "-1"], /--max-queue <n>.*at least 0/],
  [["serve", "--max-body-size", "4 megs"], /a size, such as 2GB or 500MB/],
  [["serve", "--token", "short"], /--token must have at least 16 characters/],
  [["serve", "--token", "sixteen characters"], /--token must have at least 16 characters, and no spaces/],
  [["serve", "--adapter", "a/b=dir", "--model", "m"], /--adapter a\/b=dir: its name must be/],
  [["serve", "--adapter", "a=", "--model", "m"], /--adapter a=: give a folder/],
  [
    ["serve", "--adapter", "a=x", "--adapter", "a=y", "--model", "m"],
    /--adapter a: two adapters have this name/,
  ],
  [["serve", "--adapter", "m=x", "--model", "m"], /--adapter m: the base has this name; .*--name/],
  [["serve", "--name", "", "--model", "m"], /--name must not be empty/],
  [["serve", "--allow-origin", "*"], /--allow-origin \* must be an origin, such as http/],
  [["serve", "--allow-origin", "http://a.example/x"], /must be an origin/],
  [["chat", "--temperature", "-1"], /--temperature <t>.*0 or above/],
  [["finetune", "--train-on", "user"], /Allowed choices are assistant, completion, all/],
  [["evaluate"], /required option '--data <file>'/],
  [["merge", "--adapter", "a"], /required option '--output <folder>'/],
  [
    ["merge", "--adapter", "a", "--output", "o", "--dtype", "i32"],
    /--dtype <type>.*Allowed choices are f32, f16, bf16, /,
  ],
  [
    ["merge", "--adapter", "a", "--output", "o", "--dtype", "q8_0"],
    /a block type as --dtype with --format other than gguf \(q8_0\): .*; give --format gguf/,
  ],
  [
    ["merge", "--adapter", "a", "--output", "o.gguf", "--format", "safetensors", "--dtype", "q4_0"],
    /a block type as --dtype with --format other than gguf \(q4_0\): /,
  ],
  [
    ["merge", "--adapter", "a", "--output", "o", "--format", "onnx"],
    /--format <name>.*Allowed choices are safetensors, gguf/,
  ],
  [
    ["merge", "--adapter", "a", "--output", "o.gguf", "--max-shard-size", "2GB"],
    /--max-shard-size with --format gguf: /,
  ],
  [
    ["merge", "--adapter", "a", "--output", "o", "--max-shard-size", "2 gigs"],
    /a size, such as 2GB or 500MB/,
  ],
  [["merge", "--adapter", "a", "--output", "o", "--max-shard-size", "0.4B"], /a size, such as 2GB or 500MB/],
  [["export", "--adapter", "a", "--format", "kohya"], /required option '--output <path>'/],
  [["export", "--adapter", "a", "--output", "o"], /required option '--format <name>'/],
  [
    ["export", "--adapter", "a", "--output", "o", "--format", "onnx"],
    /Allowed choices are gguf, peft, kohya, loralib/,
  ],
];

for (const [argv, message] of wrong) {
  test.serial(`wrong usage: ${argv.join(" ") || "nothing"}`, async (t) => {
    const { status, stdout, stderr } = await run(...argv);
    t.is(status, 2);
    t.is(stdout, "");
    t.regex(stderr, message);
    t.regex(stderr, ONE_LINE);
  });
}

test.serial("a config file: unknown keys, bad values and bad YAML are wrong usage", async (t) => {
  const cases: [string, RegExp][] = [
    ["rnk: 3", /unknown key "rnk" \(did you mean rank\?\); known are model, revision, offline, data/],
    ["config: other.yaml", /unknown key "config"/],
    ["batch_size: 2", /unknown key "batch_size" \(did you mean batch-size\?\)/],
    ["gradientAccumulation: 2", /unknown key "gradientAccumulation" \(did you mean grad-accum\?\)/],
    ["device: gpux", /device: Unknown device "gpux" \(did you mean gpu\?\)/],
    ["schedule: consine", /must be one of linear, cosine, constant, got consine \(did you mean cosine\?\)/],
    ["{steps: 3, epochs: 2}", /give one of steps in .*\.yaml and epochs in .*\.yaml, not both/],
    ["eval-every: 2", /eval-every in .*\.yaml needs --eval-data or --eval-split/],
    ["rank: 0", /rank: It must be a whole number of at least 1/],
    ["json: 3", /json must be true or false/],
    ["rank: true", /rank needs a value/],
    ["rank: {a: 1}", /rank must be a plain value/],
    ["schedule: fast", /schedule: It must be one of linear, cosine, constant/],
    ["- rank", /expected options by name/],
    ["rank: 2\na: [", /\.yaml: line 2: not YAML: Flow sequence/],
    ["rank: 2\n---\nrank: 3", /\.yaml: line 2: a second document starts here, and the file must have one\n/],
    ["rank: 2\nrank: 3", /\.yaml: line 2: this key is given twice\n/],
    ["rank: 2\nlr: !float32 3", /\.yaml: line 2: not YAML: Unresolved tag: !float32\n/],
    ['{\n// the rank\n"rank": 4}', /\.yaml: line 2: a comment starts with #, in JSON too/],
    ['{"rank": 4, // the rank\n/* none\n */}', /\.yaml: line 2: a comment starts with #, in JSON too/],
    ["rank: *anchor", /not YAML: Unresolved alias/],
    ["lr: 1e400", /lr: "Infinity" is not a finite number/],
    ["lr: .nan", /lr: "NaN" is not a number/],
  ];
  for (const [text, message] of cases) {
    const { status, stderr } = await run("finetune", "--data", "d.txt", "--config", yaml(text));
    t.is(status, 2, text);
    t.regex(stderr, message);
    t.regex(stderr, ONE_LINE);
  }
  const missing = await run("finetune", "--config", join(folder, "absent.yaml"));
  t.is(missing.status, 1);
  t.regex(missing.stderr, /absent\.yaml: cannot be read \(ENOENT\)/);
});

test.serial("a missing file fails with one line and no stack", async (t) => {
  const cases: [string[], RegExp][] = [
    [["evaluate", "--data", join(folder, "absent.txt")], /absent\.txt: no such data file/],
    [["generate", "--prompt", "a", "--adapter", join(folder, "absent")], /absent: no such adapter/],
    [["generate", "--prompt", "a", "--adapter", folder], /has no adapter_config\.json/],
    [["merge", "--adapter", "a", "--output", folder], /exists: name a folder that doesn't/],
    [["merge", "--adapter", "a", "--output", folder, "--format", "gguf"], /exists: name a file that doesn't/],
  ];
  for (const [argv, message] of cases) {
    const { status, stdout, stderr } = await run(...argv);
    t.is(status, 1);
    t.is(stdout, "");
    t.regex(stderr, message);
    t.regex(stderr, ONE_LINE);
  }
});

test.serial("help is a command, too", async (t) => {
  const all = await run("help");
  t.is(all.status, 0);
  t.is(all.stdout, (await run("--help")).stdout);
  t.regex(all.stdout, /Usage: lowrank .*Commands:.*finetune /s);
  for (const name of ["finetune", "devices"]) {
    const one = await run("help", name);
    t.is(one.status, 0);
    t.is(one.stdout, (await run(name, "--help")).stdout);
  }
});

test.serial("help and version are no failures", async (t) => {
  const help = await run("finetune", "--help");
  t.is(help.status, 0);
  t.regex(help.stdout, /Usage: lowrank finetune/);
  const version = await run("--version");
  t.is(version.status, 0);
  t.regex(version.stdout, /^\d+\.\d+\.\d+\n$/);
});
