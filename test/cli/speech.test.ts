/** Fine-tuning on WAV files from the command line. */
import { join } from "node:path";
import test from "ava";
import { temporary } from "../hashed.js";
import { rowsFile } from "../tiny-encoder.js";
import { speechFile, tinyWhisper, tones } from "../tiny-whisper.js";
import { lowrank } from "./lowrank.js";

test.serial("fine-tune on WAV files, resume, evaluate, inspect, merge", async (t) => {
  const folder = temporary();
  const [model, output, merged] = [await tinyWhisper(), join(folder, "out"), join(folder, "merged")];
  const rows = tones(30);
  const [data, held] = [speechFile(rows.slice(0, 24)), speechFile(rows.slice(24))];
  const common = ["--model", model, "--data", data, "--device", "cpu", "--output", output];
  const steps = [
    "--lr",
    "0.02",
    "--batch-size",
    "4",
    "--grad-accum",
    "1",
    "--rank",
    "4",
    "--save-every",
    "4",
  ];
  const run = ["finetune", ...common, ...steps, "--eval-data", held, "--steps", "4"];
  const untold = await lowrank(run);
  t.is(untold.status, 1);
  t.regex(untold.stderr, /lowrank: language: give the language that is spoken, one of en, de\n$/);
  const trained = await lowrank([...run, "--language", "english"]);
  t.is(trained.status, 0, trained.stderr);
  t.regex(trained.stdout, /data +24 rows/);
  t.regex(trained.stdout, /6 rows held out/);
  t.regex(trained.stdout, /held-out loss \d/);
  const more = await lowrank(["finetune", "--resume", output, "--steps", "24", "--device", "cpu"]);
  t.is(more.status, 0, more.stderr);

  const judged = ["evaluate", "--data", held, "--language", "en", "--device", "cpu", "--json"];
  const figures = async (...of: string[]): Promise<{ loss: number; tokens: number }> => {
    const { status, stdout, stderr } = await lowrank([...judged, ...of]);
    t.is(status, 0, stderr);
    return JSON.parse(stdout) as { loss: number; tokens: number };
  };
  const [before, after] = [await figures("--model", model), await figures("--adapter", output)];
  t.is(after.tokens, before.tokens);
  t.true(after.loss < before.loss / 2, `${before.loss}, and ${after.loss} when it was trained`);
  t.is((await lowrank(["merge", "--adapter", output, "--output", merged])).status, 0);
  const whole = await figures("--model", merged);
  // Merging rounds once more.
  t.true(Math.abs(whole.loss - after.loss) < 1e-5, `${whole.loss}, ${after.loss}`);

  const shown = await lowrank(["inspect", held, "--model", model, "--language", "de", "--rows", "1"]);
  t.is(shown.status, 0, shown.stderr);
  t.regex(shown.stdout, /<\|start\|>⟦<\|de\|><\|transcribe\|><\|notimes\|>high<\/s>⟧/);
  t.regex(shown.stdout, /6 rows, 6 trained on, 0 cut, 0 left out/);
});

test.serial("data and commands that do not suit a speech model are one line", async (t) => {
  const model = await tinyWhisper();
  const data = speechFile(tones(3));
  const text = rowsFile([{ text: "a" }]);
  const gone = rowsFile([{ audio: "gone.wav", text: "a" }]);
  const own = ["--device", "cpu"];
  const cases: [string[], RegExp][] = [
    [
      ["evaluate", "--model", model, "--language", "en", "--data", text],
      /:1: there is no "audio", and the model/,
    ],
    [
      ["evaluate", "--model", model, "--language", "tlh", "--data", data],
      /language must be one of en, de, got "tlh"/,
    ],
    [["evaluate", "--data", data], /:1: the row has "audio", but the model is a language model/],
    [["evaluate", "--data", gone], /:1: gone\.wav is not there; audio is the path of a WAV file/],
    [["generate", "--model", model, "--prompt", "a"], /this model is not a language model/],
  ];
  for (const [argv, message] of cases) {
    const { status, stdout, stderr } = await lowrank([...argv, ...own]);
    t.is(status, 1, argv.join(" "));
    t.is(stdout, "");
    t.regex(stderr, message);
    t.regex(stderr.trimEnd().split("\n").at(-1) as string, /^lowrank: /);
  }
});
