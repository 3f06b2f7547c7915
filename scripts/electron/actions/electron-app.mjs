// Test actions for examples/electron-app. Each action needs the state left by the previous one.
import assert from "node:assert/strict";
import { cpSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { lifecycle, newestRun, reaches } from "./lifecycle.mjs";

const QUESTION = "Who keeps the lighthouse?";
const ANSWER = "Marta keeps the lighthouse.";

/** Asks a question and resolves with the last answers, by side. */
async function answers(app, question) {
  const turns = app.page.locator("#talk > li");
  const last = turns.nth(await turns.count());
  await app.fill("question", question);
  await app.click("ask");
  // The button is disabled from the moment that the turn appears.
  await last.waitFor();
  await app.page.locator("#ask:enabled").waitFor();
  const text = async (side) => {
    const found = last.locator(`.${side} p`);
    return (await found.count()) === 0 ? undefined : found.textContent();
  };
  return { before: await text("before"), after: await text("after") };
}

async function begin(app) {
  await app.fill("steps", "2000");
  await app.click("train");
}

export const actions = {
  async "the window opens with the included model"({ start, screenshot }) {
    const app = await start();
    await app.shows("model", /^Included model · /);
    await app.shows("data", /^village\.jsonl · 6 rows/);
    assert.ok(!(await app.isEnabled("stop")) && (await app.isEnabled("train")));
    await screenshot("start");
  },

  async "a model and data are chosen in dialogs; what does not fit is told beside them"({ app, userData }) {
    const folder = join(userData, "chosen");
    const places = await app().page.evaluate(() => window.app.places());
    cpSync(places.model.replace("app.asar", "app.asar.unpacked"), join(folder, "my model"), {
      recursive: true,
    });
    await app().choose(join(folder, "my model"));
    await app().click("model-folder");
    await app().shows("model", /^my model · /);
    await app().choose(join(folder, "missing.jsonl"));
    await app().click("data-file");
    const missing = await app().shows("data-error", /./);
    assert.doesNotMatch(missing, /ERR_|TypeError|undefined/);
    writeFileSync(join(folder, "broken.jsonl"), '{"text": "a"}\n{"prompt": 3}\n');
    await app().choose(join(folder, "broken.jsonl"));
    await app().click("data-file");
    const broken = await app().shows("data-error", /2/);
    assert.doesNotMatch(broken, /ERR_|TypeError|undefined/);
    assert.ok(!(await app().isEnabled("train")));
    cpSync(places.data, join(folder, "my rows.jsonl"));
    await app().choose(join(folder, "my rows.jsonl"));
    await app().click("data-file");
    await app().shows("data", /^my rows\.jsonl · 6 rows/);
    await app().choose(undefined);
    await app().click("data-file");
    await app().shows("data", /^my rows\.jsonl · 6 rows/);
  },

  async "data that is gone when training starts is reported next to its choice"({ app, userData }) {
    const folder = join(userData, "chosen");
    const gone = join(folder, "gone.jsonl");
    writeFileSync(gone, '{"prompt": "a", "completion": " b"}\n');
    await app().choose(gone);
    await app().click("data-file");
    await app().shows("data", /^gone\.jsonl · 1 row/);
    rmSync(gone);
    await app().click("train");
    await app().shows("data-error", /^gone\.jsonl is no longer there\. Choose it again\.$/);
    await app().choose(join(folder, "my rows.jsonl"));
    await app().click("data-file");
    await app().shows("data", /^my rows\.jsonl · 6 rows/);
  },

  async "a chat before, a run to its end, and a chat after: it has learnt the sample"({ app, screenshot }) {
    const first = await answers(app(), QUESTION);
    assert.ok(first.before.length > 0 && first.after === undefined);
    await app().click("train");
    await reaches(app(), "figures", 5);
    await screenshot("training");
    await app().shows("state", /^Finished after \d+ steps/);
    const second = await answers(app(), QUESTION);
    assert.equal(second.after, ANSWER);
    assert.notEqual(second.before, ANSWER);
    await screenshot("done");
  },

  async "a run stops and resumes, with one curve"({ app, userData }) {
    await begin(app());
    await reaches(app(), "figures", 5);
    assert.ok(!(await app().isEnabled("train")));
    await app().click("stop");
    const stopped = Number(
      /step (\d+)/.exec(await app().shows("state", /^Stopped at step \d+ .* saved\.$/))[1],
    );
    assert.equal(newestRun(userData).saved, stopped);
    await app().click("resume");
    const step = await reaches(app(), "figures", stopped + 1);
    const points = (await app().page.locator("#curve polyline").getAttribute("points")).split(" ").length;
    assert.ok(points >= stopped + 1, `${points} points at step ${step}`);
    await app().click("stop");
    await app().shows("state", /^Stopped at step \d+ .* saved\.$/);
  },

  async "data that was moved is told, and the run resumes once it is back"({ app, userData, screenshot }) {
    const file = join(userData, "chosen", "my rows.jsonl");
    renameSync(file, `${file}.moved`);
    await app().click("resume");
    const told = await app().shows("run-error", /my rows\.jsonl/);
    assert.doesNotMatch(told, /ERR_|TypeError|undefined/);
    await screenshot("moved");
    renameSync(`${file}.moved`, file);
    await app().click("resume");
    await reaches(app(), "figures", newestRun(userData).saved + 1);
    await app().click("stop");
    await app().shows("state", /^Stopped at step/);
  },

  ...lifecycle({
    begin,
    resume: (app) => app.click("resume"),
    step: "figures",
    lost: ["run-error", /./],
  }),
};
