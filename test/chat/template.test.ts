/** Chat templates: their locations, their variables, their errors. */
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

import test from "ava";

import { BoundedInterpreter, OutOfBounds, limitTime } from "../../src/chat/bounded.js";
import { Environment, parse } from "../../src/chat/jinja.js";
import { formatTime } from "../../src/chat/strftime.js";
import { ChatTemplate } from "../../src/chat/template.js";
import { LowrankError } from "../../src/errors.js";
import { chatMl, tokenizerOf } from "./fixtures.js";

const user = [{ role: "user", content: "hello" }];

function failure(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof LowrankError) return `${error.code} ${error.message}`;
    throw error;
  }
  return "nothing";
}

function rendered(source: string, messages: { role: string; content: string }[] = user): string {
  return new ChatTemplate(source, {}, "t").render({ messages });
}

test("the template in chat_template.jinja overrides the one in tokenizer_config.json", (t) => {
  const tokenizer = tokenizerOf(chatMl, "config");
  t.is(tokenizer.applyChatTemplate(user, { tokenize: false }), "config");
  writeFileSync(
    join(dirname(tokenizer.path), "chat_template.jinja"),
    "file\r\n{% if true %}\r\nend{% endif %}",
  );
  const again = tokenizerOf(chatMl, "config");
  const marked = "\uFEFFfile\r\n{% if true %}\r\nend{% endif %}";
  writeFileSync(join(dirname(again.path), "chat_template.jinja"), marked);
  t.is(again.applyChatTemplate(user, { tokenize: false }), "file\nend", "without the byte order mark");
});

test("of named templates tool_use is used with tools, and default otherwise", (t) => {
  const tokenizer = tokenizerOf(chatMl, [
    { name: "default", template: "plain" },
    { name: "tool_use", template: "{{ tools | length }} tools" },
  ]);
  t.is(tokenizer.applyChatTemplate(user, { tokenize: false }), "plain");
  t.is(tokenizer.applyChatTemplate(user, { tokenize: false, tools: [{}] }), "1 tools");
  t.is(tokenizer.chatTemplate, "plain");
  const only = tokenizerOf(chatMl, [{ name: "default", template: "plain" }]);
  t.is(only.applyChatTemplate(user, { tokenize: false, tools: [{}] }), "plain");
  const other = tokenizerOf(chatMl, [{ name: "rag", template: "plain" }]);
  t.regex(
    failure(() => other.applyChatTemplate(user)),
    /^ERR_CHAT_TEMPLATE .*has no chat template/,
  );
  const wrong = tokenizerOf(chatMl, 3);
  t.regex(
    failure(() => wrong.applyChatTemplate(user)),
    /^ERR_FILE_FORMAT .*chat_template must be a text or/,
  );
});

test("special tokens, as text and as objects, tools, variables", (t) => {
  const template =
    "{{ bos_token }}|{{ eos_token }}|{{ unk_token }}|{{ thinking }}|{% if tools is none %}none{% endif %}";
  const tokenizer = tokenizerOf(chatMl, template, { bos_token: { content: "<b>" } });
  t.is(tokenizer.applyChatTemplate(user, { tokenize: false }), "<b>|<|im_end|>|||none");
  const chatTemplateKwargs = { thinking: false, bos_token: "B" };
  t.is(
    tokenizer.applyChatTemplate(user, { tokenize: false, chatTemplateKwargs }),
    "B|<|im_end|>||false|none",
  );
});

test("the text is encoded without added special tokens", (t) => {
  const tokenizer = tokenizerOf(chatMl, "<|im_start|>{{ messages[0].content }}<|im_end|>");
  const ids = tokenizer.applyChatTemplate(user);
  t.deepEqual(ids, tokenizer.encode("<|im_start|>hello<|im_end|>", { addSpecialTokens: false }));
  t.is(ids[0], tokenizer.tokenToId("<|im_start|>"));
});

test("an assigned or given template overrides the model's own", (t) => {
  const tokenizer = tokenizerOf(chatMl, "own");
  t.is(tokenizer.applyChatTemplate(user, { tokenize: false, chatTemplate: "given" }), "given");
  tokenizer.chatTemplate = "assigned";
  t.is(tokenizer.applyChatTemplate(user, { tokenize: false }), "assigned");
  tokenizer.chatTemplate = undefined;
  t.is(tokenizer.applyChatTemplate(user, { tokenize: false }), "own");
});

test("without a template the error says how to give one", (t) => {
  const tokenizer = tokenizerOf(chatMl, undefined);
  t.is(tokenizer.chatTemplate, undefined);
  t.regex(
    failure(() => tokenizer.applyChatTemplate(user)),
    /^ERR_CHAT_TEMPLATE .*set tokenizer\.chatTemplate, or give finetune the option chatTemplate$/,
  );
});

test("arguments are validated", (t) => {
  const tokenizer = tokenizerOf(chatMl, "own");
  const apply = tokenizer.applyChatTemplate.bind(tokenizer) as (...all: unknown[]) => unknown;
  const cases: [unknown[], RegExp][] = [
    [["text"], /^ERR_OPTION applyChatTemplate: messages must be an array/],
    [[[]], /^ERR_OPTION applyChatTemplate: messages is empty/],
    [
      [[{ role: "me", content: "" }]],
      /^ERR_OPTION applyChatTemplate: messages\[0\]\.role is "me"; roles are/,
    ],
    [
      [user, { generationPrompt: true }],
      /^ERR_OPTION applyChatTemplate: there is no option generationPrompt/,
    ],
    [[user, { addGenerationPrompt: 1 }], /^ERR_OPTION applyChatTemplate: addGenerationPrompt/],
    [[user, { tools: [1] }], /^ERR_OPTION applyChatTemplate: "tools" must be an array of objects/],
    [[user, { chatTemplate: 3 }], /^ERR_OPTION applyChatTemplate: chatTemplate/],
    [[user, { chatTemplateKwargs: "a" }], /^ERR_OPTION applyChatTemplate: chatTemplateKwargs/],
  ];
  for (const [all, message] of cases)
    t.regex(
      failure(() => apply(...all)),
      message,
    );
});

test("a template that is unreadable, throws or fails is one error", (t) => {
  const cases: [string, RegExp][] = [
    ["{% if %}", /^ERR_CHAT_TEMPLATE t: the chat template cannot be read: [^\n]+$/],
    [
      "{{ raise_exception('no such\nrole') }}",
      /^ERR_CHAT_TEMPLATE t: the chat template refuses the messages: no/,
    ],
    ["{{ nothing + 1 }}", /^ERR_CHAT_TEMPLATE t: the chat template fails: [^\n]+$/],
    ["{{ messages | nofilter }}", /^ERR_CHAT_TEMPLATE t: the chat template fails: [^\n]+$/],
    [
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      /^ERR_CHAT_TEMPLATE t: the chat template fails: [^\n]+$/,
    ],
  ];
  for (const [source, message] of cases)
    t.regex(
      failure(() => rendered(source)),
      message,
      source,
    );
});

test("an endless template is stopped", (t) => {
  const grows =
    "{% set ns = namespace(a=[1]) %}{% for i in range(100) %}{% set ns.a = ns.a + ns.a %}{% endfor %}";
  t.is(
    failure(() => rendered(grows)),
    "ERR_CHAT_TEMPLATE t: the chat template was stopped: it does not terminate",
  );
  t.regex(
    failure(() => rendered("{{ range(1000000000000) }}")),
    /was stopped: it asks for a range of 1000000000000/,
  );
  const loop = parse("{% for i in all %}{% for j in all %}{{ i }}{% endfor %}{% endfor %}");
  const run = (steps: number): unknown => {
    const environment = new Environment();
    environment.set("all", [1, 2, 3]);
    return new BoundedInterpreter(environment, steps).run(loop).value;
  };
  t.is(run(40), "111222333");
  t.throws(() => run(10), { instanceOf: OutOfBounds });
});

test("a step that takes too long is ended", (t) => {
  const endless = (): void => {
    for (;;);
  };
  t.is(
    t.throws(() => limitTime(endless, 50), { instanceOf: OutOfBounds }).message,
    "it takes longer than 0.05 s",
  );
  t.is(
    limitTime(() => 3),
    3,
  );
  t.is(t.throws(() => limitTime(() => JSON.parse("{"))).name, "SyntaxError");
});

test("strip with given characters, as in Python", (t) => {
  const all =
    "{% set s = '-\n x y\n-' %}[{{ s.strip('-') }}][{{ s.lstrip('-\n') }}][{{ s.rstrip('\n-') }}][{{ ' a '.strip() }}]";
  t.is(rendered(all), "[\n x y\n][ x y\n-][-\n x y][a]");
  t.regex(
    failure(() => rendered("{{ 'a'.strip(3) }}")),
    /strip\(\) takes a string of characters/,
  );
});

test("dates are in English, for any system language", (t) => {
  const date = new Date(2024, 6, 5, 13, 4, 9);
  t.is(
    formatTime(date, "%d %b %Y, %A %B %-d %% %H:%M:%S %I %p %j %y %a %m"),
    "05 Jul 2024, Friday July %-d % 13:04:09 01 PM 187 24 Fri 07",
  );
});

test("marks around the assistant's turns do not change the text", (t) => {
  const source =
    "{% for m in messages %}\n  {%- generation -%}\n  <{{ m.content }}> \n  {%- endgeneration %}\n {% endfor %}";
  const template = new ChatTemplate(source, {}, "t");
  const conversation = { messages: [...user, { role: "assistant", content: "\u{1f40b}" }] };
  const text = template.render(conversation);
  t.is(text, "<hello> <\u{1f40b}> ".replaceAll("> ", ">"));
  t.deepEqual(template.findMarkedSpans(conversation, text), [
    { start: 0, end: 7 },
    { start: 7, end: 11 },
  ]);
  // The delimiters of a span are characters that the text does not contain.
  const taken = { messages: [{ role: "user", content: "\uf4d0\uf4d1" }] };
  t.deepEqual(template.findMarkedSpans(taken, template.render(taken)), [{ start: 0, end: 4 }]);
});

test("marks whose text is changed afterwards are ignored", (t) => {
  const source = "{% set s %}{% generation %} a {% endgeneration %}{% endset %}{{ s | trim }}";
  const template = new ChatTemplate(source, {}, "t");
  t.true(template.marksTurns);
  t.is(template.findMarkedSpans({ messages: user }, template.render({ messages: user })), undefined);
});
