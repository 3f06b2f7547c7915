/** Contents of a conversation's row other than plain texts: content parts, weights, tool calls and tools. */
import test from "ava";

import { parseMessages } from "../../src/chat/messages.js";
import type { Tokenizer } from "../../src/models/tokenizer.js";
import { tokenizeRows, keepTrained } from "../../src/data/examples.js";
import { readData, type RowData } from "../../src/data/read.js";
import { listWarnings } from "../../src/data/report.js";
import type { Example } from "../../src/data/store.js";
import { isTrained } from "../../src/data/parts.js";
import type { TrainOn } from "../../src/data/format.js";
import { rowsOf, write } from "../data/sources.js";
import { chatMl, templateText, tokenizerOf } from "./fixtures.js";

const text = (value: string): object => ({ type: "text", text: value });

/** Returns the trained texts of each row, and the warnings. */
async function trained(
  tokenizer: Tokenizer,
  rows: object[],
  trainOn: TrainOn = "completion",
  maxLength = 1000,
): Promise<{ texts: string[]; warnings: string[] }> {
  const data = await rowsOf(...rows);
  const options = { maxLength, eosTokenIds: [1], trainOn };
  const store = await tokenizeRows(data, tokenizer, options);
  const texts = Array.from(store, (row: Example) =>
    [...row.ids.keys()]
      .map((i) =>
        isTrained(row, i) ? tokenizer.decode(row.ids.slice(i, i + 1), { skipSpecialTokens: false }) : "|",
      )
      .join("")
      .replaceAll(/\|+/g, "|"),
  );
  const warnings = store.reports
    .flatMap((report) => listWarnings(report, { maxLength, modelLength: 2000 }))
    .map((one) => one.replace(data.file, "f"));
  return { texts, warnings };
}

const qwen = (): Tokenizer => tokenizerOf(chatMl, templateText("qwen2_5"));

test("text parts are equivalent to one text", async (t) => {
  const parts = {
    messages: [
      { role: "user", content: [text("Who keeps "), text("the light?")] },
      { role: "assistant", content: [{ type: "output_text", text: "Marta." }] },
    ],
  };
  const plain = {
    messages: [
      { role: "user", content: "Who keeps the light?" },
      { role: "assistant", content: "Marta." },
    ],
  };
  const tokenizer = qwen();
  const { texts } = await trained(tokenizer, [parts, plain]);
  t.is(texts[0], texts[1]);
  t.is(texts[1], "|Marta.<|im_end|>\n");
  // A template that supports parts gets the text, too, and so does a prompt.
  t.deepEqual(tokenizer.applyChatTemplate(parts.messages), tokenizer.applyChatTemplate(plain.messages));
});

test("content that is not text is refused by file, line and position", async (t) => {
  const user = (content: unknown) => JSON.stringify({ messages: [{ role: "user", content }] });
  const assistant = (fields: object) => JSON.stringify({ messages: [{ role: "assistant", ...fields }] });
  const call = (value: unknown) => ({
    tool_calls: [{ type: "function", function: { name: "f", arguments: value } }],
  });
  const cases: [row: string, message: RegExp][] = [
    [
      user([text("a"), { type: "image_url", image_url: { url: "x" } }]),
      /:1: "messages"\[0\]\.content\[1\] is of type "image_url"; only parts of type "text"/,
    ],
    [user([{ type: "input_audio", input_audio: {} }]), /content\[0\] is of type "input_audio"/],
    [user([{ type: "image" }]), /is of type "image"/],
    [user([{ text: "a" }]), /content\[0\] has no type/],
    [user(["a"]), /content\[0\] must be \{"type": "text", "text": …\}, got a string/],
    [user([{ type: "text", text: 3 }]), /content\[0\]\.text must be a string, got a number/],
    [user([]), /content must be a string or an array of text parts, got an empty array/],
    [assistant({ content: null }), /content must be a string or an array of text parts, got null/],
    [assistant({ content: "a", weight: 0.5 }), /\[0\]\.weight must be 0 or 1, got 0\.5/],
    [assistant({ content: "a", weight: "0" }), /weight must be 0 or 1, got "0"/],
    [
      JSON.stringify({ messages: [{ role: "user", content: "a", weight: 0 }] }),
      /weight is 0, but the role is "user"/,
    ],
    [
      assistant({ content: "", function_call: { name: "f", arguments: "{}" } }),
      /function_call is OpenAI's old form; write the call as tool_calls/,
    ],
    [assistant(call("{city")), /tool_calls\[0\]\.function\.arguments must be JSON/],
    [assistant(call("[1]")), /arguments must be an object, got an array/],
    [assistant({ content: "a", tool_calls: ["x"] }), /tool_calls\[0\] must be an object, got a string/],
    [
      JSON.stringify({ messages: [{ role: "user", content: "a" }], images: ["x.png"] }),
      /the row has "images"/,
    ],
    [
      JSON.stringify({ messages: [{ role: "user", content: "a", images: ["x.png"] }] }),
      /"messages"\[0\]\.images contains media, but only text can be used/,
    ],
    [assistant({ content: "a", audio: { id: "x" } }), /"messages"\[0\]\.audio contains media/],
    [
      user([{ type: "text", text: "a", image: "x.png" }]),
      /"messages"\[0\]\.content\[0\]\.image contains media; only parts of type "text"/,
    ],
    [
      JSON.stringify({ conversations: [{ from: "human", value: "a" }], image: "x.png" }),
      /the row has "image"/,
    ],
  ];
  for (const [row, message] of cases) {
    const error = await t.throwsAsync(readData(write("a.jsonl", row)), undefined, row);
    t.is((error as { code?: string }).code, "ERR_DATA_ROW");
    t.regex(error.message, message);
  }
  t.notThrows(() =>
    parseMessages([{ role: "assistant", content: [], tool_calls: [{ name: "f" }] }], "m", (what) => {
      throw new Error(what);
    }),
  );
});

test("a message with calls and content null: a template that trims it gets an empty text", async (t) => {
  const template =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.strip() }}" +
    "{% for c in m.tool_calls or [] %}<{{ c.function.name }}>{% endfor %}<|im_end|>\n{% endfor %}" +
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
  const calling = (more: object): object => ({
    messages: [
      { role: "user", content: " Weather? " },
      {
        role: "assistant",
        ...more,
        tool_calls: [{ type: "function", function: { name: "weather", arguments: {} } }],
      },
    ],
  });
  for (const strip of ["m.content.strip()", "m.content | trim"]) {
    const tokenizer = tokenizerOf(chatMl, template.replace("m.content.strip()", strip));
    const { texts } = await trained(tokenizer, [
      calling({ content: null }),
      calling({}),
      calling({ content: "" }),
    ]);
    t.deepEqual(
      texts,
      Array.from({ length: 3 }, () => "|<weather><|im_end|>\n"),
      strip,
    );
  }
  // A template that tests for a missing content still sees that it is missing.
  const testing = tokenizerOf(
    chatMl,
    "{% for m in messages %}{% if m.content is defined %}a{% else %}b{% endif %}{% endfor %}",
  );
  const { messages } = calling({ content: null }) as { messages: [] };
  t.is(testing.applyChatTemplate(messages, { tokenize: false }), "ab");
});

test("arguments as JSON text are equivalent to an object", async (t) => {
  const row = (value: unknown) => ({
    messages: [
      { role: "user", content: "Weather?" },
      {
        role: "assistant",
        content: "",
        tool_calls: [{ type: "function", function: { name: "weather", arguments: value } }],
      },
    ],
    tools: [{ type: "function", function: { name: "weather", parameters: {} } }],
  });
  const { texts, warnings } = await trained(qwen(), [
    row('{"city": "Nantucket"}'),
    row({ city: "Nantucket" }),
  ]);
  t.is(texts[0], texts[1]);
  t.regex(texts[0] as string, /"arguments": \{"city": "Nantucket"\}/);
  t.deepEqual(warnings, []);
});

const turn = (role: string, content: string, weight?: number): object => ({
  role,
  content,
  ...(weight !== undefined && { weight }),
});
const weights = [
  turn("user", "q1"),
  turn("assistant", "a1", 0),
  turn("user", "q2"),
  turn("assistant", "a2"),
  turn("user", "q3"),
  turn("assistant", "a3", 1),
];

for (const template of ["qwen2_5", "qwen2_5_training"])
  test(`${template}: a turn of weight 0 is read and not trained on`, async (t) => {
    const tokenizer = tokenizerOf(chatMl, templateText(template));
    const { texts, warnings } = await trained(tokenizer, [{ messages: weights }]);
    const [only] = texts;
    t.regex(only as string, /^\|\n?a2<\|im_end\|>\n\|\n?a3<\|im_end\|>\n$/);
    t.deepEqual(warnings, []);
    const none = { messages: [turn("user", "q"), turn("assistant", "a", 0)] };
    const left = await trained(tokenizer, [none, { messages: weights }]);
    t.deepEqual([left.texts[0], left.texts[1]], ["", only]);
    t.deepEqual(left.warnings, ["f: 1 of 2 rows (first line 1) skipped: every assistant turn has weight 0"]);
  });

test("weight 0 applies with trainOn all, in ShareGPT rows, and if marks do not separate the turns", async (t) => {
  const [all] = (await trained(qwen(), [{ messages: weights }], "all")).texts;
  t.regex(all as string, /q1.*assistant\n\|<\|im_start\|>user\nq2.*a2.*a3/s);
  t.notRegex(all as string, /a1/);
  const speakers: Record<string, string> = { user: "human", assistant: "gpt" };
  const conversations = (weights as { role: string; content: string; weight?: number }[]).map(
    ({ role, content, weight }) => ({
      from: speakers[role],
      value: content,
      weight,
    }),
  );
  t.is(
    (await trained(qwen(), [{ conversations }])).texts[0],
    (await trained(qwen(), [{ messages: weights }])).texts[0],
  );
  // The first turn is not marked, so there are two marks for three turns.
  const partly =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.index0 > 1 %}" +
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}" +
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
  const messages = [
    turn("user", "q1"),
    turn("assistant", "a1"),
    turn("user", "q2"),
    turn("assistant", "a2", 0),
    turn("user", "q3"),
    turn("assistant", "a3"),
  ];
  t.deepEqual((await trained(tokenizerOf(chatMl, partly), [{ messages }])).texts, ["|a3<|im_end|>"]);
});

/** Writes roles and contents, but neither tools nor calls. */
const PLAIN =
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}<|im_end|>\n{% endfor %}" +
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
const calling = {
  messages: [
    { role: "user", content: "Weather?" },
    {
      role: "assistant",
      content: null,
      tool_calls: [{ type: "function", function: { name: "weather", arguments: "{}" } }],
    },
    { role: "tool", content: "fog" },
    { role: "assistant", content: "Fog." },
  ],
};
const tools = [{ type: "function", function: { name: "weather", parameters: {} } }];
const plain = { messages: [turn("user", "q"), turn("assistant", "a")] };

for (const trainOn of ["completion", "all"] as const)
  test(`a row whose tool calls the template does not render is skipped and counted: ${trainOn}`, async (t) => {
    const { texts, warnings } = await trained(tokenizerOf(chatMl, PLAIN), [plain, calling], trainOn);
    t.not(texts[0], "");
    t.is(texts[1], "");
    t.deepEqual(warnings, [
      "f: 1 of 2 rows (first line 2) skipped: the chat template ignores their tool calls; use a template for tools with chatTemplate",
    ]);
    const written = await trained(qwen(), [plain, { ...calling, tools }], trainOn);
    t.not(written.texts[1], "");
    t.deepEqual(written.warnings, []);
  });

test("a row is skipped if only one of its two calls is rendered", async (t) => {
  const first = PLAIN.replace(
    "{{ m.content or '' }}",
    "{{ m.content or '' }}{% if m.tool_calls %}{{ m.tool_calls[0].function.name }}{% endif %}",
  );
  const call = (name: string) => ({ type: "function", function: { name, arguments: {} } });
  const row = (...names: string[]) => ({
    messages: [turn("user", "q"), { role: "assistant", tool_calls: names.map(call) }],
  });
  const { texts } = await trained(tokenizerOf(chatMl, first), [row("one"), row("one", "two")]);
  t.deepEqual(texts, ["|one<|im_end|>\n", ""]);
});

test("if every row is skipped, the error says why", async (t) => {
  const tokenizer = tokenizerOf(chatMl, PLAIN);
  const data: RowData = await rowsOf(calling);
  const store = await tokenizeRows(data, tokenizer, { maxLength: 100, eosTokenIds: [1] });
  t.throws(() => keepTrained(store, data.file, { maxLength: 100, modelLength: 2000 }, store.reports), {
    code: "ERR_NO_TRAINED_TOKENS",
    message:
      /nothing to train on: .*1 of 1 rows \(first line 1\) skipped: the chat template ignores their tool calls/,
  });
});

test("tools and messages that the template does not render are reported", async (t) => {
  const silent = PLAIN.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}");
  const { texts, warnings } = await trained(tokenizerOf(chatMl, silent), [
    plain,
    { ...plain, tools },
    { messages: [turn("system", "Be brief."), ...plain.messages] },
  ]);
  t.is(new Set(texts).size, 1);
  t.deepEqual(warnings, [
    "f: 1 of 3 rows (first line 2) trained on without their tools: the chat template ignores them; use a template for tools with chatTemplate",
    "f: 1 of 3 rows (first line 3) trained on without one of their messages, such as the system message: the chat template ignores it",
  ]);
});
