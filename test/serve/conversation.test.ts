/** How the conversation of a request reaches the chat template: roles, empty answers, tools, reasoning effort. */
import test, { type ExecutionContext } from "ava";

import { ADAPTERS, adaptedModel, BASE, serving, type Serving, TEMPLATE } from "./serving.js";

/** Serves the tiny model with `template`. */
async function servingTemplate(t: ExecutionContext, template: string): Promise<Serving> {
  const model = await adaptedModel();
  if (model.tokenizer) model.tokenizer.chatTemplate = template;
  return serving(t, { model });
}

interface Outcome {
  status: number;
  /** The greedy answer, with the number of prompt tokens. */
  answer: unknown;
  error?: { message: string; param: string };
}

async function ask({ post }: Serving, body: object): Promise<Outcome> {
  const asked = { model: BASE, temperature: 0, max_tokens: 4, ...body };
  const response = await post("/chat/completions", asked);
  const { choices, usage, error } = (await response.json()) as Record<string, never>;
  return { status: response.status, answer: [choices, usage], error };
}

const USER = { role: "user", content: "b" };

test("a developer message is a system message, unless the template has the role", async (t) => {
  const developer = [{ role: "developer", content: "a" }, USER];
  const system = [{ role: "system", content: "a" }, USER];
  // The word in a comment or in the text is no role.
  const plain = await servingTemplate(t, `{# "developer" #}the developer says ${TEMPLATE}`);
  const replaced = await ask(plain, { messages: developer });
  t.is(replaced.status, 200);
  t.deepEqual(replaced.answer, (await ask(plain, { messages: system })).answer);

  const own = `{% if messages[0].role == 'developer' %}long before the sea {% endif %}${TEMPLATE}`;
  const special = await servingTemplate(t, own);
  t.notDeepEqual(
    (await ask(special, { messages: developer })).answer,
    (await ask(special, { messages: system })).answer,
  );
});

test("an assistant's content of null without tool calls is an empty text", async (t) => {
  const server = await serving(t);
  const turn = (fields: object): object => ({ messages: [USER, { role: "assistant", ...fields }, USER] });
  const empty = await ask(server, turn({ content: "" }));
  t.is(empty.status, 200);
  for (const fields of [{}, { tool_calls: null }, { tool_calls: [] }, { refusal: null }])
    t.deepEqual((await ask(server, turn({ content: null, ...fields }))).answer, empty.answer);
});

test("tools, tool calls and their results that the template ignores are refused", async (t) => {
  const call = { id: "c", type: "function", function: { name: "f", arguments: "{}" } };
  const called = { role: "assistant", content: null, tool_calls: [call] };
  const result = { role: "tool", tool_call_id: "c", content: "42" };
  const tools = [{ type: "function", function: { name: "f", parameters: { type: "object" } } }];
  const text = "{% for m in messages if m.role != 'tool' %}{{ m.role }}: {{ m.content }}{% endfor %}";
  const cases: [template: string, body: object, param: string, message: RegExp][] = [
    [text, { messages: [USER], tools }, "tools", /ignores tools; leave them out/],
    // It notices that there are tools, and writes none of them.
    [
      `{% if tools %}You have tools.{% endif %}${text}`,
      { messages: [USER], tools },
      "tools",
      /ignores tools/,
    ],
    [text, { messages: [USER, called] }, "messages", /ignores tool calls/],
    [text, { messages: [USER, result] }, "messages", /ignores the content of a message/],
  ];
  for (const [template, body, param, message] of cases) {
    const { status, error } = await ask(await servingTemplate(t, template), body);
    t.is(status, 400);
    t.is(error?.param, param);
    t.regex(error?.message ?? "", message);
  }
  const written =
    "{{ tools | tojson }}{% for m in messages %}{{ m.tool_calls | tojson }}{{ m.content }}{% endfor %}";
  const server = await servingTemplate(t, written);
  t.is((await ask(server, { messages: [USER, called, result], tools })).status, 200);
  // A request that forbids calls needs no tools.
  const plain = await servingTemplate(t, text);
  t.is((await ask(plain, { messages: [USER], tools, tool_choice: "none" })).status, 200);
});

test("parameters that change nothing are accepted, and the log lists each once", async (t) => {
  const server = await serving(t);
  const plain = await ask(server, { messages: [USER] });
  const asked = {
    messages: [USER],
    metadata: { a: "b" },
    parallel_tool_calls: false,
    prediction: { type: "content", content: "a" },
    prompt_cache_key: "k",
    prompt_cache_retention: "24h",
    reasoning_effort: "low",
    safety_identifier: "s",
    service_tier: "flex",
    store: true,
    user: "me",
  };
  t.deepEqual((await ask(server, asked)).answer, plain.answer);
  await ask(server, { ...asked, model: ADAPTERS[0] });
  const { messages: _, ...names } = asked;
  const listed = server.lines.flatMap(
    (line) => /change nothing here: (.*)$/.exec(line)?.[1]?.split(", ") ?? [],
  );
  t.deepEqual(listed.sort(), Object.keys(names));
});

test("reasoning_effort reaches a template that reads it", async (t) => {
  const server = await servingTemplate(t, `{{ reasoning_effort }} ${TEMPLATE}`);
  const [low, high] = [
    await ask(server, { messages: [USER], reasoning_effort: "low" }),
    await ask(server, { messages: [USER], reasoning_effort: "the highest of all" }),
  ];
  t.notDeepEqual(low.answer, high.answer);
  t.false(server.lines.some((line) => line.includes("reasoning_effort")));
});

test("any whole number is a seed, and a list of stop texts ends at the first that occurs", async (t) => {
  const { client } = await serving(t);
  const asked = { model: BASE, prompt: "the whale", max_tokens: 12 };
  for (const seed of [-1, 0, 2 ** 63, -(2 ** 63)]) {
    const [first, second] = [
      await client.completions.create({ ...asked, seed }),
      await client.completions.create({ ...asked, seed }),
    ];
    t.is(first.choices[0]?.text, second.choices[0]?.text ?? "");
  }
  const whole = (await client.completions.create({ ...asked, temperature: 0 })).choices[0]?.text ?? "";
  const stop = [whole.slice(8, 11), whole.slice(4, 6), "a text that does not occur"];
  const cut = await client.completions.create({ ...asked, temperature: 0, stop });
  const end = Math.min(...stop.map((text) => whole.indexOf(text)).filter((place) => place >= 0));
  t.is(cut.choices[0]?.text, whole.slice(0, end));
  t.is(cut.choices[0]?.finish_reason, "stop");
});
