/**
 * The page in Chromium: its content, keyboard operation, on a phone, in light and dark, across reloads and
 * connection losses.
 */
import { appendFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test, { type ExecutionContext } from "ava";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";

import { Dashboard } from "../../src/dashboard/server.js";
import { openFolderSource, openLiveSource, type RunSource } from "../../src/dashboard/sources.js";
import { formatEvent } from "../../src/runs/events-file.js";
import { identifyProcess } from "../../src/runs/process-identity.js";
import { launchChromium } from "../chromium.js";
import { lowrank, runHere } from "../cli/lowrank.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { NOON, started, stepped, writeRun } from "../runs/written.js";

let browser: Browser;

test.before(async () => {
  browser = await launchChromium();
});

test.after.always(() => browser?.close());

const event = (type: string, more: Record<string, unknown>): { type: string } => ({ type, ...more });
const upTo = (last: number): number[] => Array.from({ length: last }, (_, i) => i + 1);
const END = event("end", { adapter: "out", loss: 1, evalLoss: 1, steps: 40, stopped: false, seconds: 9 });
const SAMPLE = { prompt: "Who is <b>Ahab</b>?", base: "Nobody.", tuned: "The captain." };
const MARKED = [
  { text: "Who? ", trained: false },
  { text: "Ahab.</s>", trained: true },
];

function told(steps: number, learningRate: number): { type: string }[] {
  return [
    started(steps, { learningRate, family: "llama", maxLength: 512 }),
    event("rows", { rows: [MARKED] }),
    event("eval", { step: 0, loss: 4.5 }),
    event("sample", { step: 0, texts: [{ ...SAMPLE, tuned: "Nobody." }] }),
    ...upTo(steps).map((n) => stepped(n, steps, { learningRate: learningRate * (1 - n / steps) })),
    event("eval", { step: steps, loss: 1.25 }),
    event("sample", { step: steps, texts: [SAMPLE] }),
    event("warning", { message: "a row was cut" }),
  ];
}

/** Opens a page for a source; the test fails if the browser reports an error or contacts another server. */
async function opened(
  t: ExecutionContext,
  source: RunSource,
  options: BrowserContextOptions = {},
): Promise<{ page: Page; dashboard: Dashboard }> {
  const dashboard = await Dashboard.open(source, { port: 0, holds: true });
  t.teardown(() => dashboard.close());
  return { page: await visited(t, dashboard.url, options), dashboard };
}

async function visited(t: ExecutionContext, url: string, options: BrowserContextOptions = {}): Promise<Page> {
  const context = await browser.newContext(options);
  t.teardown(() => context.close());
  const page = await context.newPage();
  page.on("request", (request) => {
    const to = request.url();
    if (!to.startsWith(url) && !to.startsWith("data:")) t.fail(`asked for ${to}`);
  });
  page.on("pageerror", (error) => t.fail(error.message));
  page.on("console", (message) => {
    const lost = /net::ERR_(CONNECTION|INCOMPLETE_CHUNKED|EMPTY_RESPONSE)/.test(message.text());
    if (message.type() === "error" && !lost) t.fail(message.text());
  });
  await page.goto(url);
  return page;
}

/** Returns the relative luminance (WCAG 2) of `rgb(r, g, b)`. */
function luminance(color: string): number {
  const [r = 0, g = 0, b = 0] = (color.match(/\d+/g) ?? []).map((part) => {
    const value = Number(part) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

const readout = (metric: string): string => `figure[data-metric="${metric}"] output`;

async function says(t: ExecutionContext, page: Page, selector: string, text: string | RegExp): Promise<void> {
  const found = page.locator(selector);
  t.pass();
  await found
    .filter({ hasText: text })
    .first()
    .waitFor({ timeout: 20_000 })
    .catch(async () => {
      t.fail(
        `${selector} says ${await found.allTextContents().then((all) => all.join(" | "))}, and not ${text}`,
      );
    });
}

test.serial("an ended run: all its events, as text and never as markup", async (t) => {
  const home = temporary();
  writeRun(home, [...told(40, 2e-4), END]);
  const { page } = await opened(t, openFolderSource(home));
  await says(t, page, ".state", "ended, step 40 of 40");
  await says(t, page, readout("loss"), `last1.4743, held out 1.25`);
  await says(t, page, readout("learningRate"), "last0");
  await says(t, page, readout("gradNorm"), "last0.525");
  await says(t, page, readout("tokensPerSecond"), "last1005");
  await says(t, page, readout("memoryBytes"), "last286.1 MiB");
  await says(t, page, ".samples article", "Who is <b>Ahab</b>?beforeNobody.with the adapterThe captain.");
  t.is(await page.locator(".rows mark").textContent(), "Ahab.</s>");
  t.is(await page.locator(".rows li").textContent(), "Who? Ahab.</s>");
  await says(t, page, ".settings", "max length512");
  await says(t, page, ".messages", "warning: a row was cut");
  t.true(await page.locator("button.stop").isHidden());
  t.true(await page.locator("section.runs").isHidden());
  // From an earlier evaluation.
  await page.locator("#sample-step").selectOption("0");
  await says(t, page, ".samples article", "with the adapterNobody.");
});

test.serial("a run on several ranks shows a table of them, which follows the steps", async (t) => {
  const home = temporary();
  const ranks = [
    { host: "node<b>1", pid: 41, devices: ["gpu:0", "gpu:1"], rows: 5 },
    { host: "node2", pid: 42, devices: ["cpu"], rows: 3 },
  ];
  const figures = (n: number): object[] => [
    { tokensPerSecond: 1000 + n, memoryBytes: 2 ** 30 },
    { tokensPerSecond: 500.4 + n, memoryBytes: 2 ** 20 * n },
  ];
  const file = writeRun(home, [started(40, { ranks })]);
  const { page } = await opened(t, openFolderSource(home));
  const rows = "section.ranks tbody tr";
  await says(t, page, rows, /^0node<b>141gpu:0, gpu:15––$/);
  for (const n of [1, 2]) appendFileSync(file, formatEvent(stepped(n, 40, { ranks: figures(n) }), NOON));
  await says(t, page, rows, /^0node<b>141gpu:0, gpu:1510021 GiB$/);
  await says(t, page, rows, /^1node242cpu35022 MiB$/);
  t.is(await page.locator(rows).count(), 2);
  t.false((await page.locator(".settings").textContent())?.includes("node2"));
  const { page: other } = await opened(t, openFolderSource(temporary()));
  t.true(await other.locator("section.ranks").isHidden());
});

test.serial(
  "by keyboard alone: along the steps, zoomed, back, the theme and the choice of runs",
  async (t) => {
    const home = temporary();
    writeRun(join(home, "a"), told(40, 2e-4));
    writeRun(join(home, "b"), told(30, 1e-3), { lineage: "0123456789ac", at: NOON + 60_000 });
    const { page } = await opened(t, openFolderSource(home));
    await says(t, page, readout("loss"), "a: 1.4743");
    const focused = (): Promise<string> =>
      page.evaluate(
        "(({ tagName, className, textContent }) => `${tagName}.${className} ${textContent}`)(document.activeElement)",
      );
    const reach = async (wanted: RegExp): Promise<void> => {
      for (let n = 0; n < 40; n++) {
        if (wanted.test(await focused())) return;
        await page.keyboard.press("Tab");
      }
      t.fail(`Tab does not reach ${wanted}`);
    };
    await reach(/^DIV\.plot/);
    await page.keyboard.press("End");
    await says(t, page, readout("loss"), /^step 40/);
    await page.keyboard.press("ArrowLeft");
    await says(t, page, readout("loss"), /^step 39a: 1\.4804$/);
    // All charts follow.
    await says(t, page, readout("gradNorm"), /^step 39/);
    await page.keyboard.press("Shift+ArrowLeft");
    await says(t, page, readout("loss"), /^step 29a: .*b: /);
    await page.keyboard.press("Home");
    await says(t, page, readout("loss"), /^step 0a: held out 4\.5b: held out 4\.5$/);
    const marks = (): Promise<string> =>
      page
        .locator('figure[data-metric="loss"] canvas')
        .screenshot()
        .then((image) => image.toString("base64"));
    const whole = await marks();
    for (const key of ["ArrowRight", "+", "+"]) await page.keyboard.press(key);
    await page.waitForTimeout(300);
    const zoomed = await marks();
    t.not(zoomed, whole);
    await page.keyboard.press("0");
    await page.keyboard.press("Home");
    await page.waitForTimeout(300);
    t.is(await marks(), whole);
    // The focused element has a visible outline.
    const outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle");
    t.is(outline, "solid");
    await page.locator("body").press("Home");
    await reach(/^BUTTON.*Switch theme/);
    const paper = (): Promise<unknown> => page.evaluate("getComputedStyle(document.body).backgroundColor");
    const light = await paper();
    await page.keyboard.press("Enter");
    t.not(await paper(), light);
    await reach(/^INPUT/);
    await page.keyboard.press("Space");
    await page.waitForTimeout(600);
    t.deepEqual(await page.locator("#details option").allTextContents(), ["b"]);
    await says(t, page, readout("loss"), /^last1\.5477, held out 1\.25$/);
    // The checkbox keeps the focus, although the table was redrawn.
    t.regex(await focused(), /^INPUT/);
  },
);

test.serial("two runs of different rates are overlaid, in separate colours", async (t) => {
  const home = temporary();
  writeRun(join(home, "slow"), told(40, 2e-4));
  writeRun(join(home, "fast"), told(20, 1e-3), { lineage: "0123456789ac", at: NOON + 60_000 });
  const { page } = await opened(t, openFolderSource(home));
  await says(t, page, readout("loss"), "slow: 1.4743");
  await says(t, page, readout("loss"), "fast: 1.6708");
  const rows = await page.locator("section.runs tbody tr").allTextContents();
  t.is(rows.length, 2);
  t.regex(rows[0] as string, /^slowinterruptedtiny162\.00e-440\/401\.47431\.25/);
  t.regex(rows[1] as string, /^fastinterruptedtiny160\.00120\/201\.67081\.25/);
  const colors = await page
    .locator(`${readout("loss")} .swatch`)
    .evaluateAll((all) =>
      (all as unknown as { style: { background: string } }[]).map(({ style }) => style.background),
    );
  t.is(new Set(colors).size, 2);
  await page.locator("#details").selectOption("slow");
  await says(t, page, ".settings", "learning rate2.00e-4");
});

for (const colorScheme of ["light", "dark"] as const) {
  test.serial(
    `on a phone, ${colorScheme}: nothing is wider than the page, and buttons are large enough`,
    async (t) => {
      const home = temporary();
      writeRun(join(home, "a-run-with-a-rather-long-name"), told(40, 2e-4));
      writeRun(join(home, "b"), told(30, 1e-3), { lineage: "0123456789ac" });
      const phone = { viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true, colorScheme };
      const { page } = await opened(t, openFolderSource(home), phone);
      await says(t, page, readout("loss"), "1.4743");
      const widest = await page.evaluate("document.documentElement.scrollWidth");
      t.is(widest, 360);
      for (const selector of ["header button:visible", "select:visible", "section.runs label"])
        for (const one of await page.locator(selector).all()) {
          const box = await one.boundingBox();
          t.true((box?.height ?? 0) >= 30, selector);
        }
      const chart = await page.locator('figure[data-metric="loss"] canvas').boundingBox();
      t.true((chart?.width ?? 0) > 250 && (chart?.width ?? 0) < 360);
      // Text has sufficient contrast with its background.
      const colors = await page.evaluate(
        "[getComputedStyle(document.body)].map((s) => [s.color, s.backgroundColor])[0]",
      );
      const [more, less] = (colors as string[]).map(luminance).sort((a, b) => b - a) as [number, number];
      const contrast = (more + 0.05) / (less + 0.05);
      t.true(contrast > 7, String(contrast));
      const line = "getComputedStyle(document.querySelector('.plot')).getPropertyValue('--line')";
      t.is(await page.evaluate(line), colorScheme === "dark" ? "rgb(44, 52, 61)" : "rgb(223, 227, 232)");
      const paper = "getComputedStyle(document.body).backgroundColor";
      await page.evaluate("document.documentElement.dataset.theme = 'dark'");
      t.is(await page.evaluate(paper), "rgb(16, 20, 24)");
      // Paper is white.
      await page.emulateMedia({ media: "print", colorScheme });
      t.is(await page.evaluate(paper), "rgb(251, 251, 250)");
    },
  );
}

test.serial(
  "an active run is followed, stopped by its button, and a reload or a second page loses nothing",
  async (t) => {
    const home = temporary();
    const file = writeRun(home, told(40, 2e-4).slice(0, 14));
    let stops = 0;
    const source = openLiveSource(
      () => "mine",
      () => file,
      () => stops++,
    );
    const { page, dashboard } = await opened(t, source);
    await says(t, page, ".state", "step 10 of 40");
    for (const n of [11, 12]) appendFileSync(file, formatEvent(stepped(n, 40), NOON));
    await says(t, page, ".state", "step 12 of 40");
    const second = await visited(t, dashboard.url);
    for (const one of [second, page]) {
      await one.reload();
      await says(t, one, ".state", "step 12 of 40");
      await says(t, one, ".samples", "Nobody.");
      for (const [keys, text] of [
        ["Home", /^step 0held out 4\.5$/],
        ["ArrowRight", /^step 14$/],
        ["End", /^step 12/],
      ] as const) {
        await one.locator('figure[data-metric="loss"] .plot').press(keys);
        await says(t, one, readout("loss"), text);
      }
    }
  },
);

test.serial("the pause button pauses the run, and then resumes it", async (t) => {
  const home = temporary();
  const file = writeRun(home, told(40, 2e-4).slice(0, 14));
  const asked: string[] = [];
  const pauses = { pause: () => asked.push("pause"), resume: () => asked.push("resume") };
  const source = openLiveSource(
    () => "mine",
    () => file,
    () => {},
    pauses,
  );
  writeFileSync(join(home, "run.lock"), JSON.stringify({ ...identifyProcess(), token: "a" }));
  const { page } = await opened(t, source);
  await says(t, page, ".state", "running, step 10 of 40");
  await says(t, page, "button.pause", "Pause");
  const button = page.locator("button.pause");
  await button.press("Enter");
  await says(t, page, "button.pause", "Pausing …");
  t.true(await button.isDisabled());
  appendFileSync(file, formatEvent({ type: "paused", step: 10 } as { type: string }, NOON));
  await says(t, page, ".state", "paused, step 10 of 40");
  await says(t, page, "button.pause", "Resume");
  await page.reload();
  await says(t, page, ".state", "paused, step 10 of 40");
  await button.press("Enter");
  appendFileSync(file, formatEvent({ type: "resumed", step: 10, seconds: 3 } as { type: string }, NOON));
  await says(t, page, ".state", "running, step 10 of 40");
  await says(t, page, "button.pause", "Pause");
  t.deepEqual(asked, ["pause", "resume"]);
});

test.serial("the stop button asks for confirmation, and stops only the run", async (t) => {
  const home = temporary();
  let stops = 0;
  let file: string | undefined;
  const source = openLiveSource(
    () => "mine",
    () => file,
    () => stops++,
  );
  const { page } = await opened(t, source);
  await says(t, page, ".state", "running");
  const answers = [false, true];
  const asked: string[] = [];
  page.on("dialog", (dialog) => {
    asked.push(dialog.message());
    void (answers.shift() === true ? dialog.accept() : dialog.dismiss());
  });
  const button = page.locator("button.stop");
  await button.press("Enter");
  t.is(stops, 0);
  await button.press("Enter");
  await says(t, page, "button.stop", "Stopping …");
  t.is(stops, 1);
  t.regex(asked[0] as string, /finishes the current step and saves/);
  file = writeRun(home, [...told(40, 2e-4), { ...END, stopped: true } as { type: string }]);
  await says(t, page, ".state", "stopped, step 40 of 40");
  t.true(await button.isHidden());
});

test.serial("a server that ends during a run is reported as lost, and after a run as ended", async (t) => {
  const home = temporary();
  const file = writeRun(home, told(40, 2e-4).slice(0, 14));
  const { page, dashboard } = await opened(t, openFolderSource(home));
  await says(t, page, ".state", "step 10 of 40");
  // The list may show the end before the stream does; the warning comes only from the stream.
  const last = { type: "warning", message: "the stream has come so far" };
  appendFileSync(file, Buffer.concat([formatEvent(END, NOON), formatEvent(last, NOON)]));
  await says(t, page, ".state", "ended");
  await says(t, page, ".messages", "warning: the stream has come so far");
  await dashboard.close();
  await says(t, page, ".notices", "The run has ended; this page no longer updates.");
});

test.serial("the page of a run whose process is killed reports that, and how to continue", async (t) => {
  const output = join(temporary(), "out");
  const argv = [
    "finetune",
    "--model",
    tinyModel(),
    "--data",
    tinyData(),
    "--steps",
    "1000000",
    "--grad-accum",
    "1",
  ];
  const saving = ["--save-every", "2", "--device", "cpu", "--output", output, "--dashboard", "--json"];
  let page: Promise<Page> | undefined;
  let seen = false;
  const { status } = await lowrank([...argv, ...saving], {
    watch: (line, child) => {
      const { type, url } = JSON.parse(line) as { type: string; url: string };
      if (type === "dashboard") page = visited(t, url);
      if (type !== "checkpoint" || seen) return;
      seen = true;
      void page
        ?.then(async (shown) => {
          await says(t, shown, ".state", /running, step \d+ of 1000000/);
          return says(t, shown, ".messages", "saved");
        })
        .finally(() => child.kill("SIGKILL"));
    },
  });
  t.is(status, null);
  const shown = (await page) as Page;
  await says(t, shown, ".state", /^gone, step \d+ of 1000000$/);
  await says(t, shown, ".notices", "The run's process is gone: it was killed");
  await says(t, shown, ".notices", new RegExp(`with: lowrank finetune --resume ${output}`));
  t.true(await shown.locator("button.stop").isHidden());
  // Another process, which knows only the folder, reports it, too.
  const { page: other } = await opened(t, openFolderSource(output));
  await says(t, other, ".state", /^interrupted, step/);
  await says(
    t,
    other,
    ".notices",
    /the run's process is gone\. Continue it from step \d+ with: lowrank finetune --resume/,
  );
  const table = await runHere("runs", output);
  t.regex(table.stdout, /the run's process is gone; continue from step \d+ with lowrank finetune --resume /);
  // The recommended command works.
  const command = /lowrank (finetune --resume \S+)/.exec(table.stdout)?.[1]?.split(" ") as string[];
  const onward = await runHere(...command, "--steps", "1000000", "--device", "cpu", "--memory", "1KB");
  t.regex(onward.stderr, /the run would need/, "it is the same run, stopped by the memory limit");
});

test.serial("another site's page can neither read nor stop anything, even with the address", async (t) => {
  const home = temporary();
  let stops = 0;
  const source = openLiveSource(
    () => "mine",
    () => undefined,
    () => stops++,
  );
  const dashboard = await Dashboard.open(source, { port: 0, holds: true });
  const other = await Dashboard.open(openFolderSource(home), { port: 0, holds: true });
  t.teardown(() => Promise.all([dashboard.close(), other.close()]));
  const context = await browser.newContext();
  t.teardown(() => context.close());
  const page = await context.newPage();
  // A page without a content security policy.
  await page.route("http://other.example/**", (route) =>
    route.fulfill({ contentType: "text/html", body: "<p>" }),
  );
  await page.goto("http://other.example/");
  const tries = {
    read: `fetch("${dashboard.url}runs").then((answer) => answer.text())`,
    stop: `fetch("${dashboard.url}stop", { method: "POST" }).then((answer) => answer.text())`,
    unseen: `fetch("${dashboard.url}stop", { method: "POST", mode: "no-cors" }).then(() => "sent")`,
    watch: `new Promise((resolve, reject) => {
      const source = new EventSource("${dashboard.url}events?run=.");
      source.onopen = () => resolve("open");
      source.onerror = () => reject(new Error("closed"));
    })`,
  };
  const tried: Record<string, unknown> = {};
  for (const [name, code] of Object.entries(tries))
    tried[name] = await page.evaluate(code).catch(() => "refused");
  t.deepEqual({ ...tried, unseen: 0 }, { read: "refused", stop: "refused", unseen: 0, watch: "refused" });
  t.is(stops, 0);
  // Links to the dashboard and frames of it are refused, too.
  await page.setContent(`<a href="${dashboard.url}">link</a><iframe src="${dashboard.url}"></iframe>`);
  await page.waitForTimeout(500);
  const framed = page.frames().at(-1);
  t.false((await framed?.content())?.includes("page.css") ?? false);
  await page.locator("a").click();
  await page.waitForLoadState();
  t.regex((await page.textContent("body")) ?? "", /another site may not ask/);
});
