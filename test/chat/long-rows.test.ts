/** Long conversations: only their beginning is encoded, with the same examples as the whole text. */
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { type EncodedChat, encodeChats, fitChat, fitWholeChat } from "../../src/data/chat.js";
import { createReport } from "../../src/data/report.js";
import type { ChatRow } from "../../src/data/rows.js";
import { Tokenizer } from "../../src/models/tokenizer.js";
import { temporary, tinyModel } from "../hashed.js";
import { CLI } from "../programs.js";
import { chatMl, templateText, tokenizerOf } from "./fixtures.js";

const origin = { file: "f", numbering: "line" } as const;

/** Texts of about `length` characters: with spaces, without, and with characters of two units. */
const TEXTS: Record<string, (length: number) => string> = {
  words: (length) => "the whale and the ship, of the old sea. ".repeat(length / 40),
  "no spaces": (length) => "鯨は海を見た。そして".repeat(length / 10),
  "one letter": (length) => "a".repeat(length),
  emoji: (length) => "🐋🐳".repeat(length / 4),
};

const turn = (role: string, content: string, more = {}): ChatRow["messages"][number] => ({
  role,
  content,
  ...more,
});

/** Conversations with the long text in each place. */
function conversations(long: string): Pick<ChatRow, "messages" | "unweighted">[] {
  const [user, assistant] = [turn("user", "Hi."), turn("assistant", "Hello.")];
  return [
    { messages: [turn("user", long), assistant] },
    { messages: [user, turn("assistant", long)] },
    { messages: [user, assistant, turn("user", long), turn("assistant", long)] },
    { messages: [user, assistant, user, turn("assistant", long), user, assistant] },
    { messages: [user, assistant, user, turn("assistant", long)], unweighted: [3] },
    { messages: Array.from({ length: 12 }, () => [turn("user", long.slice(0, 8000)), assistant]).flat() },
  ];
}

/** The embedded model's tokenizer with templates of two kinds, and one that does not split texts into words. */
const tokenizers: Record<string, () => Tokenizer> = {
  "a template without marks": () => tokenizerOf(chatMl, templateText("qwen2_5")),
  "a template with marks": () => tokenizerOf(chatMl, templateText("qwen2_5_training")),
  "a tokenizer of whole texts": () => {
    const tokenizer = new Tokenizer(join(tinyModel(), "tokenizer.json"));
    tokenizer.chatTemplate = templateText("qwen2_5");
    return tokenizer;
  },
};

for (const [name, make] of Object.entries(tokenizers))
  test(`${name}: long conversations give the same examples as when encoded whole`, async (t) => {
    const tokenizer = make();
    for (const [kind, write] of Object.entries(TEXTS)) {
      const rows = conversations(write(80_000)).map((one, i): ChatRow => ({
        kind: "chat",
        line: i + 1,
        format: "messages",
        ...one,
      }));
      const all = await encodeChats(rows, tokenizer, origin);
      for (const maxLength of [60, 900]) {
        const some = await encodeChats(rows, tokenizer, origin, maxLength + 1);
        for (const [i, row] of rows.entries()) {
          const [beginning, whole] = [some[i], all[i]] as [EncodedChat, EncodedChat];
          t.deepEqual(fit(beginning, row, maxLength), fit(whole, row, maxLength), `${kind}, row ${i}`);
          t.true(
            beginning.ids.length > maxLength && beginning.ids.length < whole.ids.length,
            `${kind}, row ${i}`,
          );
          t.is(whole.total, whole.ids.length);
          const ratio = beginning.total / whole.total;
          t.true(ratio > 0.8 && ratio < 1.25, `${kind}: the estimate is ${ratio} of the number`);
        }
      }
    }
  });

/** Returns the examples of a row, and its counts. */
function fit(chat: EncodedChat, row: ChatRow, maxLength: number): object {
  const report = createReport(origin);
  return { fitted: fitChat(chat, row, maxLength, report), whole: fitWholeChat(chat, maxLength), report };
}

/** Returns the peak memory of `lowrank inspect` on a file, in bytes. */
function measurePeak(data: string, template: string): Promise<number> {
  const report = "process.on('exit', () => process.stderr.write('peak ' + process.resourceUsage().maxRSS))";
  const argv = ["--import", `data:text/javascript,${report}`, CLI, "inspect", data];
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...argv, "--chat-template", template, "--rows", "0"]);
    let stderr = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.on("error", reject);
    child.on("close", (status) => {
      const peak = /peak (\d+)/.exec(stderr)?.[1];
      if (status === 0 && peak !== undefined) resolve(Number(peak) * 1024);
      else reject(new Error(stderr));
    });
  });
}

test.serial("a line of 5 MB in a conversation takes at most 20 times its size in memory", async (t) => {
  const folder = temporary();
  const template = join(folder, "chat.jinja");
  writeFileSync(template, templateText("qwen2_5"));
  const short = JSON.stringify({ messages: [turn("user", "Hi."), turn("assistant", "Hello.")] });
  const write = (name: string, messages: ChatRow["messages"]): { path: string; bytes: number } => {
    const path = join(folder, name);
    const line = JSON.stringify({ messages });
    writeFileSync(path, `${line}\n${short}\n`);
    return { path, bytes: Buffer.byteLength(line) };
  };
  const usual = await measurePeak(
    write("short.jsonl", [turn("user", "Hi."), turn("assistant", "Yes.")]).path,
    template,
  );
  const turns = Array.from({ length: 50 }, () => [
    turn("user", (TEXTS["words"] as (length: number) => string)(50_000)),
    turn("assistant", (TEXTS["words"] as (length: number) => string)(50_000)),
  ]).flat();
  const files = [
    write("turns.jsonl", turns),
    ...Object.entries(TEXTS).map(([kind, text]) =>
      write(`${kind}.jsonl`, [
        turn("user", "Hi."),
        turn("assistant", text(kind === "words" || kind === "one letter" ? 5e6 : 17e5)),
      ]),
    ),
  ];
  for (const { path, bytes } of files) {
    const ratio = ((await measurePeak(path, template)) - usual) / bytes;
    t.true(ratio < 20, `${path}: ${ratio.toFixed(1)} times`);
  }
});
