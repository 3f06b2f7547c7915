/** The trained tokens of a conversation: transformers' masks with TRL's templates, and hand-written goldens. */
import { readFileSync } from "node:fs";

import test from "ava";

import type { ChatRow } from "../../src/data/rows.js";
import { encodeChats } from "../../src/data/chat.js";
import type { Tokenizer } from "../../src/models/tokenizer.js";
import { chatMl, conversations, families, type Family, templateText, tokenizerOf } from "./fixtures.js";

const golden = JSON.parse(
  readFileSync(new URL("../parity/goldens/chat_masks.json", import.meta.url), "utf8"),
) as Record<string, { ids: number[]; mask: number[] }[]>;

type Turns = Pick<ChatRow, "messages" | "tools">;

async function encodedBy(tokenizer: Tokenizer, ...all: Turns[]) {
  const rows = all.map((one, i): ChatRow => ({ kind: "chat", line: i + 1, format: "messages", ...one }));
  return encodeChats(rows, tokenizer, { file: "rows.jsonl", numbering: "line" });
}

function maskOf({ ids, spans }: { ids: Int32Array; spans: { start: number; end: number }[] }): number[] {
  return [...ids.keys()].map((i) => (spans.some(({ start, end }) => i >= start && i < end) ? 1 : 0));
}

test("there are twenty rows, and each trains on some of its tokens but not on all", (t) => {
  const rows = Object.values(golden).flat();
  t.is(rows.length, 20);
  for (const { mask } of rows) t.true(mask.includes(0) && mask.includes(1));
});

for (const [name, family] of Object.entries(families)) {
  test(`${name}: with TRL's training template the mask equals transformers', token for token`, async (t) => {
    const tokenizer = tokenizerOf(family, templateText(`${name}_training`));
    t.true(tokenizer.findChatTemplate(false).marksTurns);
    for (const [i, one] of (await encodedBy(tokenizer, ...conversations)).entries()) {
      t.deepEqual([...one.ids], golden[name]?.[i]?.ids, `ids of row ${i}`);
      t.deepEqual(maskOf(one), golden[name]?.[i]?.mask, `mask of row ${i}`);
      t.is(one.lost, 0);
    }
  });

  test(`${name}: the model's own template, without marks, gives the same mask`, async (t) => {
    const tokenizer = tokenizerOf(family, templateText(name));
    t.false(tokenizer.findChatTemplate(false).marksTurns);
    for (const [i, one] of (await encodedBy(tokenizer, ...conversations)).entries()) {
      const { ids, mask } = (golden[name] ?? [])[i] as { ids: number[]; mask: number[] };
      t.deepEqual([...one.ids], ids, `ids of row ${i}`);
      t.deepEqual(maskOf(one), name === "qwen2_5" ? afterHeader(tokenizer, ids, mask) : mask, `row ${i}`);
      t.is(one.lost, 0);
    }
  });
}

/**
 * Returns the mask without the line end of the header `<|im_start|>assistant`, which TRL's Qwen2.5 template marks although
 * it is part of the prompt.
 */
function afterHeader(tokenizer: Tokenizer, ids: number[], mask: number[]): number[] {
  const [end] = tokenizer.encode("\n");
  return mask.map((one, i) => (one === 1 && mask[i - 1] === 0 && ids[i] === end ? 0 : one));
}

/** Returns the texts that are trained on. */
async function trained(
  family: Family,
  template: string,
  one: Turns,
): Promise<{ texts: string[]; lost: number }> {
  const tokenizer = tokenizerOf(family, templateText(template));
  const [{ ids, spans, lost } = { ids: new Int32Array(), spans: [], lost: 0 }] = await encodedBy(
    tokenizer,
    one,
  );
  const texts = spans.map(({ start, end }) =>
    tokenizer.decode(ids.slice(start, end), { skipSpecialTokens: false }),
  );
  return { texts, lost };
}

const mistral: Family = {
  tokens: ["<s>", "</s>", "[INST]", "[/INST]"],
  rstrip: false,
  special: { bos_token: "<s>", eos_token: "</s>" },
};

test("Mistral: each answer and its end token", async (t) => {
  const messages = [
    { role: "user", content: "Hi" },
    { role: "assistant", content: "Hello, you." },
    { role: "user", content: "And now?" },
    { role: "assistant", content: "Now the sea." },
  ];
  t.deepEqual(await trained(mistral, "mistral", { messages }), {
    texts: ["Hello, you.</s>", "Now the sea.</s>"],
    lost: 0,
  });
  const open = [...messages, { role: "user", content: "Wait" }];
  t.deepEqual((await trained(mistral, "mistral", { messages: open })).texts, [
    "Hello, you.</s>",
    "Now the sea.</s>",
  ]);
});

test("Qwen3: earlier turns, which it writes without their thinking, to the token", async (t) => {
  const messages = [
    { role: "user", content: "q1" },
    { role: "assistant", content: "<think>\nhm\n</think>\n\na1" },
    { role: "user", content: "q2" },
    { role: "assistant", content: "<think>\nso\n</think>\n\na2" },
  ];
  t.deepEqual(await trained(chatMl, "qwen3", { messages }), {
    texts: ["a1<|im_end|>\n", "<think>\nso\n</think>\n\na2<|im_end|>\n"],
    lost: 0,
  });
});

test("Qwen3: a turn without thinking, and reasoning in a separate field", async (t) => {
  const messages = [
    { role: "user", content: "q1" },
    { role: "assistant", content: "a1" },
    { role: "user", content: "q2" },
    { role: "assistant", content: "a2", reasoning: "so" },
  ];
  t.deepEqual((await trained(chatMl, "qwen3", { messages })).texts, [
    "a1<|im_end|>\n",
    "<think>\nso\n</think>\n\na2<|im_end|>\n",
  ]);
});

test("Qwen3: a tool call and the answer after it; the tool's reply is not trained on", async (t) => {
  const call = { type: "function", function: { name: "weather", arguments: { city: "Nantucket", days: 2 } } };
  const messages = [
    { role: "system", content: "Be brief." },
    { role: "user", content: "Weather?" },
    { role: "assistant", tool_calls: [call] },
    { role: "tool", content: "fog" },
    { role: "assistant", content: "Fog." },
  ];
  const tools = [{ type: "function", function: { name: "weather", parameters: {} } }];
  const { texts, lost } = await trained(chatMl, "qwen3", { messages, tools });
  t.is(lost, 0);
  t.deepEqual(texts, [
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Nantucket", "days": 2}}\n</tool_call><|im_end|>\n',
    "<think>\n\n</think>\n\nFog.<|im_end|>\n",
  ]);
});

/** Refuses a conversation without a user turn, like Qwen3.5's template. */
const REFUSING =
  "{% if messages | selectattr('role', 'equalto', 'user') | list | length == 0 %}{{ raise_exception('no user') }}{% endif %}" +
  "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}" +
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

test("a template that refuses a conversation without a user turn at the start", async (t) => {
  const tokenizer = tokenizerOf(chatMl, REFUSING);
  const messages = [
    { role: "system", content: "s" },
    { role: "assistant", content: "Ask." },
    { role: "user", content: "q" },
    { role: "assistant", content: "a" },
  ];
  const [one] = await encodedBy(tokenizer, { messages });
  const texts = one?.spans.map(({ start, end }) =>
    tokenizer.decode(one.ids.slice(start, end), { skipSpecialTokens: false }),
  );
  t.deepEqual(texts, ["Ask.<|im_end|>\n", "a<|im_end|>\n"]);
});

test("if earlier turns are not rendered unchanged, only the last one is trained on", async (t) => {
  const template =
    "{% for message in messages %}<|im_start|>{% if loop.last or message.role == 'user' %}{{ message.content }}" +
    "{% else %}({{ loop.length }} turns){% endif %}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}";
  const tokenizer = tokenizerOf(chatMl, template);
  const messages = [
    { role: "user", content: "q1" },
    { role: "assistant", content: "a1" },
    { role: "user", content: "q2" },
    { role: "assistant", content: "a2" },
  ];
  // The turn count in the last turn's prefix differs, so the turn is located by the part that changes with its
  // content.
  const [one] = await encodedBy(tokenizer, { messages });
  const texts = one?.spans.map(({ start, end }) =>
    tokenizer.decode(one.ids.slice(start, end), { skipSpecialTokens: false }),
  );
  t.deepEqual(texts, ["a2<|im_end|>"]);
  t.is(one?.lost, 1);
});

test("if one of several earlier turns is not found, none of them is trained on", async (t) => {
  const template =
    "{% for message in messages %}<|im_start|>{% if loop.index0 == 3 %}({{ loop.length }})" +
    "{% else %}{{ message.content }}{% endif %}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}";
  const tokenizer = tokenizerOf(chatMl, template);
  const messages = ["q1", "a1", "q2", "a2", "q3", "a3"].map((content, i) => ({
    role: i % 2 === 0 ? "user" : "assistant",
    content,
  }));
  const [one] = await encodedBy(tokenizer, { messages });
  const texts = one?.spans.map(({ start, end }) =>
    tokenizer.decode(one.ids.slice(start, end), { skipSpecialTokens: false }),
  );
  t.deepEqual(texts, ["a3<|im_end|>"]);
  t.is(one?.lost, 2);
});
