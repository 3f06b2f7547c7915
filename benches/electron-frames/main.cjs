// The app of benches/electron-frames.mjs: a window, and a run in a utility process. Environment: LOWRANK_FRAMES, the
// measurements as JSON; LOWRANK_ELECTRON_ENTRY, the module `lowrank/electron`. Writes one line of JSON per measurement.
const { app, BrowserWindow, utilityProcess } = require("electron");
const { writeSync } = require("node:fs");
const { join } = require("node:path");
const { monitorEventLoopDelay } = require("node:perf_hooks");

const { conditions, repetitions, seconds, run } = JSON.parse(process.env.LOWRANK_FRAMES);

app
  .whenReady()
  .then(measureAll)
  .then(
    () => app.exit(0),
    (error) => {
      console.error(error);
      app.exit(1);
    },
  );

async function measureAll() {
  const window = new BrowserWindow({
    width: 800,
    height: 600,
    webPreferences: { backgroundThrottling: false },
  });
  await window.loadFile(join(__dirname, "page.html"));
  const { connect } = await import(process.env.LOWRANK_ELECTRON_ENTRY);
  // Warm-up: the first frames load resources of later ones.
  await window.webContents.executeJavaScript("frames_of(2000)");
  for (let repetition = 0; repetition < repetitions; repetition++)
    for (const { name, options } of conditions) {
      const measured = await (options === null
        ? measure(window)
        : besideRun(connect, { ...run, ...options, output: `${run.output}-${name}-${repetition}` }, () =>
            measure(window),
          ));
      writeSync(1, `${JSON.stringify({ name, repetition, ...measured })}\n`);
    }
}

/** Measures frames of the page, and the delay of timers in the main process. */
async function measure(window) {
  const delay = monitorEventLoopDelay({ resolution: 10 });
  delay.enable();
  const intervals = await window.webContents.executeJavaScript(`frames_of(${seconds * 1000})`);
  delay.disable();
  return { intervals, loop: { p99: delay.percentile(99) / 1e6, most: delay.max / 1e6 } };
}

/** Measures while a run trains; also returns the run's steps per second. */
async function besideRun(connect, options, work) {
  const trainer = utilityProcess.fork(join(__dirname, "trainer.mjs"), [], { stdio: "inherit" });
  const exited = new Promise((resolve) => trainer.once("exit", resolve));
  const client = connect(trainer);
  const aborting = new AbortController();
  const training = client.finetune({ ...options, signal: aborting.signal });
  let steps = 0;
  let started;
  let warm;
  const warmedUp = new Promise((resolve) => (warm = resolve));
  const reading = (async () => {
    for await (const event of training) {
      if (event.type === "start") started = event;
      if (event.type !== "step") continue;
      steps = event.step;
      if (steps >= 3) warm();
    }
  })();
  const failed = reading.then(() => Promise.reject(new Error("the run ended too early")));
  await Promise.race([failed, warmedUp]);
  const [before, began] = [steps, performance.now()];
  const measured = await Promise.race([failed, work()]);
  const stepsPerSecond = (steps - before) / ((performance.now() - began) / 1000);
  aborting.abort(new Error("measured"));
  await reading.catch(() => {});
  client.close();
  trainer.kill();
  await exited;
  return { ...measured, stepsPerSecond, threads: started.threads, priority: started.priority };
}
