// Part 4 of the page: a chat with the model, and side by side with the adapter of the shown run.
import { element, fileName, make, show } from "./elements.js";
import { attempt } from "./failures.js";
import { changed, onChange, shownRun, state } from "./state.js";

/** The conversation so far, by side. */
let talk = { before: [], after: [] };
/** The model and the adapter of that conversation. */
let partners = "";
let answering = false;

const adapter = () => shownRun()?.adapter;
const sides = () => (adapter() === undefined ? ["before"] : ["before", "after"]);

function forget() {
  talk = { before: [], after: [] };
  element("talk").replaceChildren();
}

/** Appends a question and returns the elements for its answers. */
function append(question) {
  const item = make("li", "");
  const answers = make("div", "", "answers");
  item.append(make("p", question, "question"), answers);
  const titles = { before: adapter() === undefined ? "Model" : "Before", after: "After" };
  const shown = sides().map((side) => {
    const answer = make("div", "", side);
    const text = make("p", "…");
    answer.append(make("h3", titles[side]), text);
    answers.append(answer);
    return text;
  });
  element("talk").append(item);
  item.scrollIntoView({ block: "nearest" });
  return shown;
}

async function ask(question) {
  if (question === "" || element("ask").disabled) return;
  const asked = sides();
  const shown = append(question);
  for (const side of asked) talk[side].push({ role: "user", content: question });
  const tell = (texts) => texts.forEach((text, i) => (shown[i].textContent = text.trim() || "…"));
  answering = true;
  changed();
  try {
    const messages = asked.map((side) => talk[side]);
    const answers = await state.questions.ask(
      "chat",
      { model: state.model.path, adapter: adapter(), messages },
      tell,
    );
    answers.forEach((text, i) => {
      shown[i].textContent = text || "(no answer)";
      talk[asked[i]].push({ role: "assistant", content: text });
    });
  } catch (error) {
    for (const side of asked) talk[side].pop();
    shown[0].closest("li").remove();
    throw error;
  } finally {
    answering = false;
    changed();
  }
}

const tryToAsk = (question) =>
  attempt(
    "chat-error",
    () => ask(question),
    () => [state.model?.path, adapter()].filter(Boolean),
  );

/** Shows prompts from the data as buttons. */
function suggestions() {
  const prompts = (state.data?.first ?? [])
    .map(([part]) => part)
    .filter(({ text, trained }) => !trained && text.length <= 80 && !/[<\n]/.test(text))
    .map(({ text }) => text.trim());
  return prompts.map((prompt) => {
    const button = make("button", prompt, "chip");
    button.type = "button";
    button.disabled = element("ask").disabled;
    button.addEventListener("click", () => void tryToAsk(prompt));
    return button;
  });
}

function render() {
  const { model, training, client } = state;
  const now = `${model?.path} ${adapter()}`;
  if (now !== partners) forget();
  partners = now;
  element("ask").disabled =
    answering || model === undefined || training !== undefined || client === undefined;
  element("interrupt").disabled = !answering;
  element("forget").disabled = answering;
  element("suggestions").replaceChildren(...suggestions());
  const template = model?.tokenizer?.chatTemplate
    ? ""
    : " This model continues a text; it has no chat template.";
  const who =
    training !== undefined
      ? "The chat waits until training has ended."
      : adapter() === undefined
        ? "Talk to the model as it is. After training, both versions answer side by side."
        : `The model as it is, and as the run on ${fileName(shownRun().data)} has trained it.`;
  show("chat-hint", `${who}${model === undefined ? "" : template}`);
}

export function listenToChat() {
  onChange(render);
  element("chat").addEventListener("submit", (event) => {
    event.preventDefault();
    const question = element("question").value.trim();
    if (!element("ask").disabled) element("question").value = "";
    void tryToAsk(question);
  });
  element("interrupt").addEventListener("click", () =>
    attempt("chat-error", () => state.questions.ask("interrupt")),
  );
  element("forget").addEventListener("click", forget);
}
