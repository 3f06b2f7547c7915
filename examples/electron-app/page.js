// The page: a model, data, a run, and a chat before and after. It has neither Node nor the engine; what it shows comes
// over one port.
import { connect } from "lowrank/electron";

import { drawCurve } from "./curve.js";
import { Questions } from "./requests.js";

const element = (id) => document.getElementById(id);
const show = (id, text) => (element(id).textContent = text);
const on = (id, work) => element(id).addEventListener("click", () => void clicked(work));
const grouped = (n) => n.toLocaleString("en");

let client;
let questions;
let places;
/** What was chosen and looked at. */
let model;
let data;
/** The run that trains, and the adapter's folder, the last run's. */
let run;
let adapter;
let talk = { before: [], after: [] };

/** Does what a click asks for; what was told before is over. */
function clicked(work) {
  element("notice").hidden = true;
  return tried(work);
}

/** Tells what goes wrong. */
async function tried(work) {
  try {
    await work();
  } catch (error) {
    show("notice", error.code === undefined ? error.message : `${error.code}: ${error.message}`);
    element("notice").hidden = false;
  }
}

/** What may be clicked now. */
function settle() {
  const training = run !== undefined;
  element("train").disabled = training || !model?.fits || !data?.kept;
  element("stop").disabled = !training;
  element("resume").disabled = training || adapter === undefined;
  element("ask").disabled = training || !model?.fits;
}

// 1 Model

async function takeModel(path) {
  if (!path) return;
  model = undefined;
  settle();
  show("model", `Looking at ${path} …`);
  const found = await questions.ask("inspect", { path }).catch((error) => {
    show("model", "None yet.");
    throw error;
  });
  if (found.kind !== "model") {
    show("model", "None yet.");
    throw new Error(`${path} holds no model: it is ${found.kind === "data" ? "data" : "an adapter"}`);
  }
  model = found;
  adapter = undefined;
  forget();
  const chat = found.tokenizer?.chatTemplate ? "with a chat template" : "without a chat template";
  show(
    "model",
    found.fits
      ? `${found.source}: ${found.loadedAs}, ${grouped(found.parameters)} weights, texts of up to ${found.context} tokens, ${chat}.`
      : `${found.source} cannot be loaded: ${found.problems.join("; ")}.`,
  );
  if (data !== undefined) await takeData(data.file);
  settle();
}

on("model-embedded", () => takeModel(places.model));
on("model-folder", async () => takeModel(await window.app.choose("folder")));
on("model-gguf", async () => takeModel(await window.app.choose("gguf")));
on("model-take", () => takeModel(element("model-hub").value.trim()));

// 2 Data

async function takeData(path) {
  if (!path) return;
  if (!model?.fits) throw new Error("choose a model first: data is looked at as its tokens");
  data = undefined;
  settle();
  show("data", `Looking at ${path} …`);
  for (const id of ["data-notices", "data-rows"]) element(id).replaceChildren();
  const found = await questions.ask("inspect", { path, model: model.path }).catch((error) => {
    show("data", "None yet.");
    throw error;
  });
  if (found.kind !== "data") throw new Error(`${path} holds no data`);
  data = found;
  const { rows, kept, cut, dropped, tokens, trainedTokens } = found;
  show(
    "data",
    `${found.file}: ${grouped(kept)} of ${grouped(rows)} rows are trained on, ${grouped(cut)} of them cut, ${grouped(dropped)} left out; ` +
      `${grouped(tokens)} tokens, ${grouped(trainedTokens)} of them predicted.`,
  );
  element("data-notices").replaceChildren(...found.notices.map((text) => texted("li", text)));
  element("data-rows").replaceChildren(
    ...found.first.map((parts) => {
      const row = texted("div", "");
      row.className = "row";
      // What is trained on is marked.
      row.append(...parts.map(({ text, trained }) => texted(trained ? "mark" : "span", text)));
      return row;
    }),
  );
  settle();
}

function texted(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

on("data-example", () => takeData(places.data));
on("data-file", async () => takeData(await window.app.choose("data")));

// 3 Train

async function train(options) {
  const points = [];
  const began = Date.now();
  await questions.ask("release");
  try {
    run = client.finetune(options);
    settle();
    show("state", "Loading.");
    for await (const event of run) {
      if (event.type === "progress") show("state", `${event.stage}: ${event.file}`);
      if (event.type === "start") show("state", `${event.steps} steps on ${event.deviceName}.`);
      if (event.type === "warning") element("data-notices").append(texted("li", event.message));
      if (event.type !== "step") continue;
      const { step, steps, loss, tokensPerSecond, etaSeconds, memoryBytes } = event;
      points.push([step, loss]);
      drawCurve(element("curve"), points, steps);
      element("progress").value = step / steps;
      show(
        "state",
        `Step ${step} of ${steps}: loss ${loss.toFixed(4)}, ${grouped(Math.round(tokensPerSecond))} tokens a second, ` +
          `${Math.ceil(etaSeconds)} s left, ${Math.round(memoryBytes / 2 ** 20)} MiB.`,
      );
    }
    const result = await run.result;
    adapter = result.adapter || undefined;
    const seconds = Math.round((Date.now() - began) / 1000);
    show(
      "state",
      result.stopped
        ? `Stopped at step ${result.steps}, and saved.`
        : `Done after ${result.steps} steps and ${seconds} s, loss ${result.loss.toFixed(4)}: ${adapter}`,
    );
    forget();
  } catch (error) {
    show("state", "It did not come to its end.");
    throw error;
  } finally {
    run = undefined;
    settle();
  }
}

/** A folder for what is trained on this data. */
const output = () =>
  `${places.adapters}/${data.file
    .split(/[\\/]/)
    .at(-1)
    .replace(/\.\w+$/, "")}`;

on("train", () =>
  train({
    model: model.path,
    data: data.file,
    output: output(),
    overwrite: true,
    lora: { r: element("rank").valueAsNumber },
    optimizer: { lr: element("rate").valueAsNumber },
    steps: element("steps").valueAsNumber,
    device: element("device").value,
    saveEvery: 50,
  }),
);
on("stop", () => run?.stop());
on("resume", () => train({ output: output(), resume: true, steps: element("steps").valueAsNumber }));

// 4 Chat

function forget() {
  talk = { before: [], after: [] };
  for (const side of ["before", "after"]) element(side).replaceChildren();
}

async function ask(question) {
  if (question === "") return;
  const shown = {};
  for (const side of ["before", "after"]) {
    talk[side].push({ role: "user", content: question });
    const asked = texted("p", question);
    asked.className = "asked";
    shown[side] = texted("p", "…");
    element(side).append(asked, shown[side]);
  }
  element("ask").disabled = true;
  element("interrupt").disabled = false;
  const tell = ([before, after]) => {
    shown.before.textContent = before.trim() || "…";
    shown.after.textContent = after.trim() || "…";
  };
  try {
    const answers = await questions.ask("chat", { model: model.path, adapter, ...talk }, tell);
    tell(answers);
    talk.before.push({ role: "assistant", content: answers[0] });
    talk.after.push({ role: "assistant", content: answers[1] });
  } catch (error) {
    for (const side of ["before", "after"]) talk[side].pop();
    throw error;
  } finally {
    element("interrupt").disabled = true;
    settle();
  }
}

element("chat").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = element("question").value.trim();
  element("question").value = "";
  void clicked(() => ask(question));
});
on("interrupt", () => questions.ask("interrupt"));
on("forget", () => forget());

// The process that trains is gone: what was asked of it ends with an error, and a new one is asked for.
window.addEventListener("message", (event) => {
  if (event.source !== window || event.data !== "lost") return;
  client.close();
  questions.lose();
  window.postMessage("port?", "*");
});

// The port comes when it is asked for.
window.addEventListener("message", (event) => {
  if (event.source !== window || event.data !== "port") return;
  void tried(async () => {
    const [port] = event.ports;
    questions = new Questions(port);
    client = connect(port);
    await client.ready;
    places ??= await window.app.places();
    element("device").replaceChildren(
      new Option("the fastest", "auto"),
      ...(await client.devices()).map(({ device, name }) => new Option(name, device)),
    );
    show("state", adapter === undefined ? "Ready." : "Ready to go on.");
    settle();
  });
});
drawCurve(element("curve"), [], 1);
window.postMessage("port?", "*");
