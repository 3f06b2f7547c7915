// Measures the dashboard: a run's events, recorded and streamed to two pages in Chromium, and the memory of a page.
//   npx tsx benches/dashboard.ts [--steps 10000] [--viewers 2] [--seconds 60]
// It needs `npm run build` and Chromium (LOWRANK_CHROMIUM sets its path). Steps are distributed evenly over the given
// seconds. The CPU time of this process is compared with the CPU time of the same steps without viewers; Chromium reports
// a page's memory after a garbage collection.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as later } from "node:timers/promises";
import { parseArgs } from "node:util";

import type { CDPSession, Page } from "playwright-core";

import { Dashboard } from "../src/dashboard/server.js";
import { openLiveSource } from "../src/dashboard/sources.js";
import { RunRecorder } from "../src/train/recorder.js";
import type { TrainEvent } from "../src/train/events.js";
import { launchChromium } from "../test/chromium.js";
import { started, stepped } from "../test/runs/written.js";

const { values } = parseArgs({
  options: {
    steps: { type: "string", default: "10000" },
    viewers: { type: "string", default: "2" },
    seconds: { type: "string", default: "60" },
  },
});
const [steps, viewers, seconds] = [values.steps, values.viewers, values.seconds].map(Number) as [
  number,
  number,
  number,
];

/** Emits all steps, evenly over the time. Returns microseconds of CPU time per step. */
async function cost(tell: (event: TrainEvent) => void): Promise<number> {
  const before = process.cpuUsage();
  const began = performance.now();
  for (let step = 1; step <= steps;) {
    const due = Math.min(steps, Math.floor(((performance.now() - began) / 1000 / seconds) * steps));
    for (; step <= due; step++)
      tell(stepped(step, steps, { loss: 4 / Math.sqrt(step) + Math.random() }) as TrainEvent);
    await later(5);
  }
  const { user, system } = process.cpuUsage(before);
  return (user + system) / steps;
}

const idle = await cost(() => {});
const folder = mkdtempSync(join(tmpdir(), "lowrank-dashboard-"));

/** A recorder for a run of this lineage that has started. */
async function begun(lineage: string): Promise<RunRecorder> {
  const recorder = new RunRecorder((message) => console.log(message));
  await recorder.begin(folder, { line: [{ lineage }], before: undefined, staged: false, log: undefined });
  recorder.record(started(steps) as TrainEvent);
  return recorder;
}

const recorder = await begun("0123456789ab");
const recording = (await cost((event) => recorder.record(event))) - idle;
await recorder.close({ abandoned: true });

const again = await begun("0123456789ac");
const live = openLiveSource(
  () => "bench",
  () => again.path,
  () => {},
);
const dashboard = await Dashboard.open(live, { port: 0, holds: true });
const browser = await launchChromium();
/** A viewer, and its peak memory in bytes. */
interface Viewer {
  page: Page;
  session: CDPSession;
  most: number;
}
const pages: Viewer[] = [];
for (let n = 0; n < viewers; n++) {
  const page = await browser.newPage();
  await page.goto(dashboard.url);
  pages.push({ page, session: await page.context().newCDPSession(page), most: 0 });
}

/** Bytes of a page's scripts and document, heap and other memory, after a garbage collection. */
async function taken({ session }: Viewer): Promise<number> {
  await session.send("HeapProfiler.collectGarbage");
  const { usedSize, backingStorageSize = 0 } = await session.send("Runtime.getHeapUsage");
  return usedSize + backingStorageSize;
}
/** Samples a page's memory and keeps the peak. */
async function watch(one: Viewer): Promise<void> {
  const { usedSize, backingStorageSize = 0 } = await one.session.send("Runtime.getHeapUsage");
  one.most = Math.max(one.most, usedSize + backingStorageSize);
}
const watching = setInterval(() => {
  for (const one of pages) watch(one).catch(() => {});
}, 500);
const streaming = (await cost((event) => again.record(event))) - idle;
await again.flush();
await dashboard.waitForPages();
await later(2000);
clearInterval(watching);
const MB = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
const first = pages[0] as Viewer;
const last = await first.page.locator(".state").textContent();
console.log(`${steps} steps over ${seconds} s; the first page says: ${last}`);
console.log(`recorded: ${recording.toFixed(1)} µs of the processor a step`);
console.log(`recorded and streamed to ${viewers} pages: ${streaming.toFixed(1)} µs a step`);
for (const one of pages)
  console.log(`a page: ${MB(await taken(one))} after a collection, ${MB(one.most)} at most`);
await first.page.reload();
await first.page.locator(".state", { hasText: `step ${steps} of ${steps}` }).waitFor();
console.log(`after a reload: ${MB(await taken(first))}, all ${steps} steps`);
await browser.close();
await dashboard.close();
await again.close({ abandoned: true });
rmSync(folder, { recursive: true, force: true });
