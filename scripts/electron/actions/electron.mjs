// Test actions for examples/electron. Each action needs the state left by the previous one.
import assert from "node:assert/strict";
import { lifecycle, newestRun, reaches } from "./lifecycle.mjs";

export const actions = {
  async "the window opens"({ start }) {
    const app = await start();
    await app.shows("state", /^ready$/);
    assert.ok(!(await app.isEnabled("resume")) && !(await app.isEnabled("stop")));
  },

  async "the main process requires the package out of the archive"({ app }) {
    const found = await app().inMain(async ({ app: main }) => {
      const { createRequire } = process.getBuiltinModule("node:module");
      const require = createRequire(`${main.getAppPath()}/main.js`);
      const { LowrankError, ones } = require("lowrank");
      const sum = await ones([3], { device: "cpu" }).sum().item();
      return { sum, same: LowrankError === require("lowrank/electron").LowrankError };
    });
    assert.deepEqual(found, { sum: 3, same: true });
  },

  async "it trains five steps, stops, and resumes"({ app, userData, screenshot }) {
    await app().click("start");
    await reaches(app(), "step", 5);
    await screenshot("training");
    assert.ok(!(await app().isEnabled("start")));
    await app().click("stop");
    const stopped = Number(/\d+/.exec(await app().shows("state", /^stopped at step \d+/))[0]);
    assert.equal(newestRun(userData).saved, stopped);
    await app().click("resume");
    await reaches(app(), "step", stopped + 1);
    await app().click("stop");
    await app().shows("state", /^stopped at step \d+/);
  },

  ...lifecycle({
    begin: (app) => app.click("start"),
    resume: (app) => app.click("resume"),
    step: "step",
    lost: ["state", /^the training process ended unexpectedly/],
  }),
};
