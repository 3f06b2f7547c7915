// Test actions for any app: its run is quit, killed and resumed. `view` describes an app's page: `begin` starts a long run,
// `resume` resumes it, `step` is the element that shows the step, and `told` the text shown for a lost process.
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** The minimum duration of a step while the app quits, in milliseconds; longer than a ten-second timeout would be. */
const LONG = 12_000;

/** Waits until the page shows a step of at least `least`, and returns it. */
export async function reaches(app, element, least) {
  const found = await app.page.waitForFunction(
    ([id, from]) => {
      const step = /step (\d+)/i.exec(document.getElementById(id).textContent)?.[1];
      return Number(step ?? -1) >= from && step;
    },
    [element, least],
    { timeout: 60_000 },
  );
  return Number(await found.jsonValue());
}

/** Returns the folder of the newest run, and the step of its newest checkpoint. */
export function newestRun(userData) {
  const adapters = join(userData, "adapters");
  const files = readdirSync(adapters).map((name) => join(adapters, name, "events.jsonl"));
  const runs = files.filter(existsSync).map((file) => {
    const lines = readFileSync(file, "utf8").split("\n").slice(0, -1);
    const events = lines.map((line) => JSON.parse(line));
    const saved = events.filter(({ type }) => type === "checkpoint").at(-1);
    return { folder: join(file, ".."), started: events[0].at, saved: saved?.step ?? 0, path: saved?.path };
  });
  return runs.sort((a, b) => a.started - b.started).at(-1);
}

/** Waits until a run newer than `previous` has a checkpoint. */
async function hasSaved(userData, previous) {
  const deadline = Date.now() + 60_000;
  for (let run = previous; run.folder === previous.folder || run.saved === 0; run = newestRun(userData)) {
    assert.ok(Date.now() < deadline, "there is no checkpoint after a minute");
    await sleep(100);
  }
}

/** Throws unless the newest run has a checkpoint at `step` or later and is not locked. */
function isSaved(userData, step) {
  const { folder, saved, path } = newestRun(userData);
  assert.ok(saved >= step, `the newest checkpoint is of step ${saved}; step ${step} was shown`);
  assert.ok(existsSync(join(path, "adapter_model.safetensors")), `${path} is not there`);
  assert.ok(!existsSync(join(folder, "run.lock")), `${folder} is still locked`);
}

export function lifecycle(view) {
  /** Resumes the run and waits for a step after its checkpoint. */
  async function resumed(app, userData) {
    const { saved } = newestRun(userData);
    // Clears the old step, which may still be shown.
    await app.page.evaluate((id) => (document.getElementById(id).textContent = ""), view.step);
    await view.resume(app);
    const step = await reaches(app, view.step, saved + 1);
    assert.ok(step <= saved + 40, `it went on at step ${step}; the checkpoint is of step ${saved}`);
  }

  return {
    async "the trainer is killed, and the run resumes in another"({ app, userData }) {
      const previous = newestRun(userData);
      await view.begin(app());
      await hasSaved(userData, previous);
      const killed = app().trainer();
      process.kill(killed, "SIGKILL");
      await app().shows(...view.lost);
      await resumed(app(), userData);
      assert.notEqual(app().trainer(), killed);
    },

    async "a second instance leaves the first one alone"({ app }) {
      const trainer = app().trainer();
      assert.equal(await app().startAgain(), 0);
      assert.equal(await app().inMain(({ BrowserWindow }) => BrowserWindow.getAllWindows().length), 1);
      assert.equal(app().trainer(), trainer);
      const step = await reaches(app(), view.step, 1);
      await reaches(app(), view.step, step + 1);
    },

    async "it quits while it trains: a checkpoint, no process, no lock"({ app, userData }) {
      const step = await reaches(app(), view.step, 1);
      assert.equal(await app().quit(), 0);
      isSaved(userData, step);
    },

    async "the next start resumes the run"({ start, userData }) {
      await resumed(await start(), userData);
    },

    async "it quits during a step of more than ten seconds: the same"({ app, userData }) {
      const step = await reaches(app(), view.step, 1);
      const trainer = app().trainer();
      process.kill(trainer, "SIGSTOP");
      const quitting = app().quit();
      await Promise.race([quitting, sleep(LONG)]);
      assert.ok(app().processes().includes(String(trainer)), "the trainer was ended before its step");
      process.kill(trainer, "SIGCONT");
      assert.equal(await quitting, 0);
      isSaved(userData, step);
    },

    async "its main process is killed: no process is left, and the next start resumes"({ start, userData }) {
      const app = await start();
      await resumed(app, userData);
      app.kill("SIGKILL");
      assert.equal(await app.ended(), "SIGKILL");
      await resumed(await start(), userData);
      assert.deepEqual(app.wrong, []);
    },

    async "its window is closed while it trains: a checkpoint, no process, no lock"({ app, userData }) {
      const step = await reaches(app(), view.step, 1);
      await app().inMain(({ BrowserWindow }) => void BrowserWindow.getAllWindows()[0].close());
      assert.equal(await app().ended(), 0);
      isSaved(userData, step);
    },
  };
}
