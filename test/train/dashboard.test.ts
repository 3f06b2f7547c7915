/**
 * `run.dashboard()` and the option: served during and after the run, by this process alone, without cost to the
 * run.
 */
import type { ChildProcess } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { finetune, type FinetuneOptions, type TrainEvent } from "../../src/index.js";
import { lowrank, ONE_LINE, runHere } from "../cli/lowrank.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { adapterBytes, collect, quick } from "./quick.js";

const given = { model: tinyModel(), data: tinyData() };
const options = (more: Partial<FinetuneOptions> = {}): FinetuneOptions & { output: string } =>
  quick(given, "cpu", { lora: { r: 2 }, ...more }) as FinetuneOptions & { output: string };

interface Listed {
  stops: boolean;
  pauses?: boolean;
  runs: { state: string; step: number }[];
}

const listed = async (url: string): Promise<Listed> => (await (await fetch(`${url}runs`)).json()) as Listed;
const urls = (events: readonly TrainEvent[]): string[] =>
  events.flatMap((event) => (event.type === "dashboard" ? [event.url] : []));

test.serial("the dashboard is one page during and after the run, and its button stops the run", async (t) => {
  const run = finetune(options({ steps: 4000 }));
  const { url } = await run.dashboard();
  t.deepEqual(await run.dashboard({ port: 1 }), { url });
  t.regex(url, /^http:\/\/127\.0\.0\.1:\d+\/[\w-]{43}\/$/);
  t.like(await listed(url), { stops: true, runs: [{ state: "running" }] });
  let asked = false;
  for await (const event of run) {
    // Unread steps may be merged, so the third step may not arrive as a separate event.
    if (asked || event.type !== "step" || event.step < 3) continue;
    asked = true;
    t.is((await fetch(`${url}stop`, { method: "POST" })).status, 204);
  }
  const { stopped, steps } = await run.result;
  t.true(stopped && steps < 4000);
  t.like(await listed(url), { runs: [{ state: "stopped", step: steps }] });
});

test.serial("a page pauses the run and resumes it", async (t) => {
  const run = finetune(options());
  const { url } = await run.dashboard();
  const post = async (what: string): Promise<number> =>
    (await fetch(`${url}${what}`, { method: "POST" })).status;
  t.is(await post("pause"), 204);
  t.is((await fetch(`${url}pause`)).status, 405);
  let state: unknown;
  while (state !== "paused") state = (await listed(url)).runs[0]?.state;
  t.like(await listed(url), { pauses: true, runs: [{ step: 0 }] });
  t.is(await post("resume"), 204);
  await run.result;
  t.like(await listed(url), { runs: [{ state: "ended", step: 12 }] });
});

test.serial(
  "the option reports the address in an event that is not recorded, and changes no bit of the adapter",
  async (t) => {
    const more = { evalSplit: 0.2, evalEvery: 4, lora: { r: 2, loraDropout: 0.3 } };
    const plain = options(more);
    await finetune(plain).result;
    const shown = options({ ...more, dashboard: true });
    const events = await collect(finetune(shown));
    t.is(events[0]?.type, "dashboard");
    const [url = ""] = urls(events);
    t.like(await listed(url), { runs: [{ state: "ended", step: 12 }] });
    t.true(adapterBytes(shown.output).equals(adapterBytes(plain.output)));
    const record = readFileSync(`${shown.output}/events.jsonl`, "utf8");
    t.false(record.includes(new URL(url).pathname));
  },
);

test.serial(
  "sample texts are reported at each evaluation at no cost, and rows are reported by every run",
  async (t) => {
    for (const more of [
      { evalSplit: 0.2, evalEvery: 4, lora: { r: 2, loraDropout: 0.3, initLoraWeights: "pissa" as const } },
      { lora: { r: 2, loraDropout: 0.3 }, gradientCheckpointing: true },
    ]) {
      const plain = options(more);
      const unseen = await collect(finetune(plain));
      const shown = options({ ...more, dashboard: true });
      const events = await collect(finetune(shown));
      t.true(adapterBytes(shown.output).equals(adapterBytes(plain.output)));
      const losses = (from: TrainEvent[]): number[] =>
        from.flatMap((event) => (event.type === "step" || event.type === "eval" ? [event.loss] : []));
      t.deepEqual(losses(events), losses(unseen));
      const samples = events.flatMap((event) => (event.type === "sample" ? [event] : []));
      t.deepEqual(
        samples.map(({ step }) => step),
        "evalEvery" in more ? [0, 4, 8, 12] : [0, 12],
      );
      t.false(unseen.some(({ type }) => type === "sample"));
      for (const { texts } of samples) {
        t.is(texts.length, 3);
        t.true(texts.every(({ prompt, base }, i) => prompt !== "" && base === samples[0]?.texts[i]?.base));
      }
      // A fresh adapter changes nothing, and a trained one does.
      t.true(samples[0]?.texts.every(({ base, tuned }) => base === tuned && base !== ""));
      t.true(samples.at(-1)?.texts.some(({ base, tuned }) => base !== tuned));
      for (const one of [unseen, events]) {
        const rows = one.flatMap((event) => (event.type === "rows" ? event.rows : []));
        t.is(rows.length, 3);
        t.true(rows.every((parts) => parts.some(({ trained, text }) => trained && text !== "")));
      }
    }
  },
);

test.serial("with prompts and completions the page shows the prompt and marks the completion", async (t) => {
  const data = join(temporary(), "rows.jsonl");
  const rows = Array.from({ length: 24 }, (_, i) => ({
    prompt: "once upon",
    completion: ` a time${i % 2 === 0 ? "" : " there"}`,
  }));
  writeFileSync(data, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  const events = await collect(finetune(options({ data, steps: 2, dashboard: true })));
  const [sample] = events.flatMap((event) => (event.type === "sample" ? [event] : []));
  const [told] = events.flatMap((event) => (event.type === "rows" ? event.rows : []));
  const before = told
    ?.filter(({ trained }) => !trained)
    .map(({ text }) => text)
    .join("");
  t.is(sample?.texts[0]?.prompt, before);
  t.regex(before ?? "", /once upon/);
  t.true(told?.at(-1)?.trained);
});

test.serial("a run that is stopped while it generates a sample ends normally", async (t) => {
  const run = finetune(options({ dashboard: true, evalSplit: 0.2, evalEvery: 1, steps: 500 }));
  for await (const event of run)
    if (event.type === "eval" && event.step === 3) setTimeout(() => void run.stop(), 1);
  const { stopped, steps } = await run.result;
  t.true(stopped && steps >= 3 && steps < 500);
});

test.serial("an invalid or occupied port is refused before anything is read", async (t) => {
  for (const dashboard of [-1, 65_536, 1.5, "8080", null] as number[])
    await t.throwsAsync(finetune(options({ dashboard })).result, {
      code: "ERR_OPTION",
      message: /dashboard/,
    });
  const first = finetune(options({ steps: 2 }));
  await t.throwsAsync(first.dashboard({ port: -1 }), {
    code: "ERR_OPTION",
    message: "dashboard: port must be a port from 1 to 65535, or 0 for a free one, got -1",
  });
  await t.throwsAsync(first.dashboard({ prot: 1 } as object), {
    code: "ERR_OPTION",
    message: /no option prot/,
  });
  const port = Number(new URL((await first.dashboard()).url).port);
  await first.result;
  await t.throwsAsync(finetune(options({ dashboard: port })).result, {
    code: "ERR_OPTION",
    message: new RegExp(`port ${port} is not available \\(EADDRINUSE\\)`),
  });
});

test.serial(
  "the command line prints the address, ends with its run although a page is open, and overlays a folder's runs",
  async (t) => {
    const { output } = options();
    const argv = ["--model", given.model, "--data", given.data, "--device", "cpu", "--output", output];
    let told = "";
    const watch = async (url: string): Promise<void> => {
      const { body } = await fetch(`${url}events?run=.`);
      for await (const part of body ?? []) told += Buffer.from(part as Uint8Array).toString();
    };
    const { status, stdout, stderr } = await lowrank(["finetune", ...argv, "--steps", "6", "--dashboard"], {
      watch: (line) => {
        const [, url] = /^dashboard: (http:\S+)$/.exec(line) ?? [];
        if (url !== undefined) watch(url).catch(() => {});
      },
    });
    t.is(status, 0, stderr);
    t.regex(stdout, /^dashboard: http:\/\/127\.0\.0\.1:\d+\/[\w-]{43}\/$/m);
    // The open page received the end event before the server closed.
    t.regex(told, /"type":"step","at":\d+,"step":6,[^]*"type":"end"/);
    const looked = async (url: string, child: ChildProcess): Promise<void> => {
      const { stops, runs } = await listed(url);
      t.like({ stops, runs }, { stops: false, runs: [{ state: "ended", step: 6 }] });
      child.kill("SIGINT");
    };
    const served = await lowrank(["runs", output, "--dashboard"], {
      watch: (line, child) => void looked(line.replace("dashboard: ", ""), child),
    });
    if (process.platform !== "win32") t.is(served.status, 130);
    for (const wrong of [
      ["finetune", "--dashboard", "x"],
      ["finetune", "--dashboard", "65536"],
      ["runs", temporary(), "--dashboard", "--json"],
    ]) {
      const ended = await runHere(...wrong);
      t.is(ended.status, 2, wrong.join(" "));
      t.regex(ended.stderr, ONE_LINE);
    }
  },
);
