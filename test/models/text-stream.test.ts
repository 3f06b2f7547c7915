/**
 * Text streamed token by token equals the decoding of all tokens, and each token is yielded once, with its bytes.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { Tokenizer } from "../../src/index.js";
import type { ChosenLogprobs } from "../../src/models/logprobs.js";
import { TextStream, type Piece } from "../../src/models/text-stream.js";
import { addedToken } from "../added-token.js";
import { temporary, words } from "../hashed.js";

const LETTERS = ["a", "b", "é", "▁", "▁the", "▁whale", "s", "🙂", "\n"];

/**
 * Returns a tokenizer of letters, with bytes for all other characters. As in SentencePiece, the first space is
 * dropped.
 */
function byteFallback(
  decoders: object[] = [
    { type: "Replace", pattern: { String: "▁" }, content: " " },
    { type: "ByteFallback" },
    { type: "Fuse" },
    { type: "Strip", content: " ", start: 1, stop: 0 },
  ],
): string {
  const special = ["<unk>", "<s>", "</s>"];
  const bytes = Array.from(
    { length: 256 },
    (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
  );
  const file = join(temporary(), "tokenizer.json");
  const vocab = Object.fromEntries([...special, ...bytes, ...LETTERS].map((token, id) => [token, id]));
  const model = { type: "BPE", unk_token: "<unk>", byte_fallback: true, fuse_unk: true, vocab, merges: [] };
  const added_tokens = special.map((content, id) => addedToken(id, content));
  writeFileSync(
    file,
    JSON.stringify({ version: "1.0", added_tokens, decoder: { type: "Sequence", decoders }, model }),
  );
  return file;
}

/** Returns whole numbers below `n`, derived from a name. */
function numbers(name: string, count: number, n: number): number[] {
  return [...words(name, count)].map((word) => (word >>> 8) % n);
}

/** Returns tokens of letters of one to four bytes, of the bytes of such letters, and special ones. */
function sentencePiece(name: string, count: number): number[] {
  return numbers(name, count, 30).flatMap((choice) => {
    if (choice < 3) return [choice];
    const letter = ["ñ", "漢", "🚀", "x", " "][choice % 5] as string;
    if (choice < 15) return [...new TextEncoder().encode(letter)].map((byte) => 3 + byte);
    return [3 + 256 + (choice % LETTERS.length)];
  });
}

const CASES: Record<string, { file: string; ids: (name: string, count: number) => number[] }> = {
  // Arbitrary bytes, mostly invalid UTF-8.
  "byte-level": {
    file: join(import.meta.dirname, "../../models/default/tokenizer.json"),
    ids: (name, count) => numbers(name, count, 2048),
  },
  "byte-level, bytes only": {
    file: join(import.meta.dirname, "../../models/default/tokenizer.json"),
    ids: (name, count) => numbers(name, count, 260),
  },
  "bytes for characters that are not letters": { file: byteFallback(), ids: sentencePiece },
};
const stories = process.env["LOWRANK_STORIES260K"];
if (stories !== undefined) {
  CASES["stories260k"] = {
    file: join(stories, "tokenizer.json"),
    ids: (name, count) => numbers(name, count, 512).filter((id) => id < 3 || id > 258),
  };
}

function streamed(
  tokenizer: Tokenizer,
  context: number[],
  ids: number[],
  stops: string[] = [],
  logprobs?: ChosenLogprobs,
): Piece[] {
  const stream = new TextStream(tokenizer, Int32Array.from(context), stops);
  const pieces: Piece[] = [];
  for (const id of ids) {
    pieces.push(...stream.add(id, logprobs));
    if (stream.ended) return pieces;
  }
  return [...pieces, ...stream.finish()];
}

function joined(pieces: readonly Piece[]): string {
  return pieces.map(({ text }) => text).join("");
}

/** The bytes of each token of a text. */
function listBytes(pieces: readonly Piece[]): number[][] {
  return pieces.map(({ bytes = [] }) => [...bytes]);
}

/** A token of a byte or a letter in each case. */
const LETTER = 3 + 256;
const CERTAIN: ChosenLogprobs = { logprob: 0, top: [] };

for (const [what, { file, ids: idsOf }] of Object.entries(CASES)) {
  test(`${what}: the pieces add up to the decoding of all tokens`, (t) => {
    const tokenizer = new Tokenizer(file);
    for (let i = 0; i < 100; i++) {
      const [n = 0, m = 0] = numbers(`${what} ${i}`, 2, 149);
      const context = idsOf(`context ${i}`, m % 25);
      const ids = idsOf(`ids ${i}`, n + 1);
      const before = tokenizer.decode(context);
      // If a prompt ends within a letter, the letter is new.
      const certain = before.slice(0, before.length - (/\ufffd{0,3}$/.exec(before)?.[0].length ?? 0));
      const all = tokenizer.decode([...context, ...ids]);
      const pieces = streamed(tokenizer, context, ids);
      t.deepEqual(
        pieces.map(({ token }) => token),
        ids,
      );
      if (all.startsWith(certain)) t.is(joined(pieces), all.slice(certain.length), `${i}`);
      else t.fail(`${i}: ${JSON.stringify([certain, all])}`);
    }
  });

  test(`${what}: the bytes of the tokens add up to the text`, (t) => {
    const tokenizer = new Tokenizer(file);
    for (let i = 0; i < 100; i++) {
      const ids = [LETTER, ...idsOf(`bytes ${i}`, 40)];
      const pieces = streamed(tokenizer, [], ids, [], CERTAIN);
      t.is(Buffer.from(listBytes(pieces).flat()).toString(), joined(pieces), `${i}`);
    }
  });

  test(`${what}: text and tokens end before a stop string`, (t) => {
    const tokenizer = new Tokenizer(file);
    for (let i = 0; i < 100; i++) {
      const ids = idsOf(`stopped ${i}`, 60);
      const all = tokenizer.decode(ids);
      const [from = 0, length = 0] = numbers(`${what} stop ${i}`, 2, 40);
      const stop = all.slice(from, from + 1 + (length % 5));
      if (stop.length === 0 || stop.includes("\ufffd") || /^[\ud800-\udfff]|[\ud800-\udbff]$/.test(stop))
        continue;
      const stops = ["never\u0001", stop];
      const pieces = streamed(tokenizer, [], ids, stops, CERTAIN);
      t.is(joined(pieces), all.slice(0, all.indexOf(stop)), `${i}`);
      if (!joined(pieces).includes("\ufffd"))
        t.is(Buffer.from(listBytes(pieces).flat()).toString(), joined(pieces), `${i}`);
      t.deepEqual(
        pieces.map(({ token }) => token),
        ids.slice(0, pieces.length),
      );
    }
  });
}

test("a token that may begin a stop string is delayed, and others are yielded at once", (t) => {
  const tokenizer = new Tokenizer(byteFallback());
  const id = (token: string): number => tokenizer.tokenToId(token) as number;
  const stream = new TextStream(tokenizer, new Int32Array(), ["abs"]);
  t.deepEqual(stream.add(id("b")), [{ token: id("b"), text: "b" }]);
  t.deepEqual(stream.add(id("a")), []);
  t.deepEqual(stream.add(id("b")), []);
  t.deepEqual(stream.add(id("a")), [
    { token: id("a"), text: "a" },
    { token: id("b"), text: "b" },
  ]);
  t.deepEqual([...stream.add(id("b")), ...stream.add(id("s"))], []);
  t.true(stream.ended);
  const cut = new TextStream(tokenizer, new Int32Array(), []);
  t.deepEqual(cut.add(3 + 0xe6), []);
  t.deepEqual(cut.add(3 + 0xbc), []);
  t.deepEqual(cut.finish(), [
    { token: 3 + 0xe6, text: "" },
    { token: 3 + 0xbc, text: "\ufffd\ufffd" },
  ]);
});

test("of invalid UTF-8, complete letters are kept, and ids without a token have no text", (t) => {
  const tokenizer = new Tokenizer(byteFallback());
  const ids = [3 + 0xc3, 3 + 0xa9, 3 + 0xff, 99_999, -1, tokenizer.tokenToId("a") as number];
  t.is(tokenizer.decode(ids.filter((id) => id > 0 && id < 300)), "\ufffd\ufffd\ufffda");
  const pieces = streamed(tokenizer, [], ids);
  t.is(joined(pieces), "é\ufffda");
  t.is(pieces.length, ids.length);
});

test("endless invalid UTF-8 is yielded with a delay of a few tokens", (t) => {
  const tokenizer = new Tokenizer(byteFallback());
  const stream = new TextStream(tokenizer, new Int32Array(), []);
  let late = 0;
  for (let given = 0, i = 1; i <= 2000; i++) {
    given += stream.add(3 + 0x80).length;
    late = Math.max(late, i - given);
  }
  t.true(late <= 4, `${late}`);
});

test("byte-level: a token's bytes are its part of a character", (t) => {
  const tokenizer = new Tokenizer(join(import.meta.dirname, "../../models/default/tokenizer.json"));
  // The vocabulary has no merges of these characters' bytes.
  const ids = [...tokenizer.encode("é 漢🙂")];
  const pieces = streamed(tokenizer, [], ids, [], CERTAIN);
  t.deepEqual(listBytes(pieces).flat(), [...Buffer.from("é 漢🙂")]);
  t.true(pieces.length > 6);
  t.deepEqual(listBytes(pieces).slice(0, 2), [[0xc3], [0xa9]]);
  t.deepEqual(
    pieces.slice(0, 2).map(({ text }) => text),
    ["", "é"],
  );
});

test("byte fallback: a token's bytes are its part of a character, or its text", (t) => {
  const tokenizer = new Tokenizer(byteFallback());
  const id = (token: string): number => tokenizer.tokenToId(token) as number;
  const ids = [id("▁the"), 3 + 0xe6, 3 + 0xbc, 3 + 0xa2, id("▁whale"), id("</s>"), id("é")];
  // The first space of a text is dropped.
  t.deepEqual(listBytes(streamed(tokenizer, [], ids, [], CERTAIN)), [
    [...Buffer.from("the")],
    [0xe6],
    [0xbc],
    [0xa2],
    [...Buffer.from(" whale")],
    [],
    [0xc3, 0xa9],
  ]);
  const after = streamed(tokenizer, [id("a")], ids.slice(0, 1), [], CERTAIN);
  t.deepEqual(listBytes(after), [[...Buffer.from(" the")]]);
});

test("a stop string cuts the bytes where it cuts the text", (t) => {
  const tokenizer = new Tokenizer(byteFallback());
  const id = (token: string): number => tokenizer.tokenToId(token) as number;
  const pieces = streamed(tokenizer, [id("a")], [id("▁the"), id("▁whale")], ["le"], CERTAIN);
  t.is(joined(pieces), " the wha");
  t.deepEqual(listBytes(pieces), [[...Buffer.from(" the")], [...Buffer.from(" wha")]]);
});

test("byte fallback: the bytes of tokens whose spaces Metaspace restores", (t) => {
  const metaspace = { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true };
  const tokenizer = new Tokenizer(byteFallback([{ type: "ByteFallback" }, metaspace]));
  const id = (token: string): number => tokenizer.tokenToId(token) as number;
  const pieces = streamed(tokenizer, [], [id("▁the"), id("▁whale"), 3 + 0xc3, 3 + 0xa9], [], CERTAIN);
  t.is(joined(pieces), "the whaleé");
  t.deepEqual(listBytes(pieces), [[...Buffer.from("the")], [...Buffer.from(" whale")], [0xc3], [0xa9]]);
});

test("byte fallback: parts of the stop string's first character are not part of the answer", (t) => {
  const tokenizer = new Tokenizer(byteFallback());
  const id = (token: string): number => tokenizer.tokenToId(token) as number;
  const whale = [0xe6, 0xbc, 0xa2].map((byte) => 3 + byte);
  for (const stop of ["漢", "漢a"]) {
    const pieces = streamed(tokenizer, [], [id("a"), ...whale, id("a")], [stop], CERTAIN);
    t.deepEqual(listBytes(pieces), [[0x61]], stop);
  }
  const special = streamed(tokenizer, [], [id("a"), id("</s>"), ...whale], ["漢"]);
  t.deepEqual(special, [
    { token: id("a"), text: "a" },
    { token: id("</s>"), text: "" },
  ]);
  const other = streamed(tokenizer, [], [...whale.slice(0, 2), id("a"), id("b")], ["b"], CERTAIN);
  t.deepEqual(listBytes(other), [[0xe6], [0xbc], [0x61]]);
});

test("byte-level: a stop string cuts tokens that are parts of two characters", (t) => {
  // GPT-2's characters of the bytes of a space with the first byte of a letter, and of its other bytes with an "x".
  const vocab = { Ġæ: 0, "¼¢x": 1, x: 2, "¼¢æ": 3, "¼¢": 4, xxæ: 5 };
  const file = join(temporary(), "tokenizer.json");
  writeFileSync(
    file,
    JSON.stringify({
      version: "1.0",
      decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
      model: { type: "BPE", vocab, merges: [] },
    }),
  );
  const tokenizer = new Tokenizer(file);
  const cases: [ids: number[], stop: string, bytes: number[][]][] = [
    [[2, 0, 1], "漢", [[0x78], [0x20]]],
    [[2, 0, 1], "漢x", [[0x78], [0x20]]],
    [[2, 0, 1], " 漢", [[0x78]]],
    [[2, 0, 1], "x漢", [[0x78], [0x20, 0xe6], [0xbc, 0xa2, 0x78]]],
    [
      [0, 1, 2],
      "xx",
      [
        [0x20, 0xe6],
        [0xbc, 0xa2],
      ],
    ],
    [[0, 3, 4], "漢漢", [[0x20]]],
    [
      [0, 3, 1, 2],
      "漢xx",
      [
        [0x20, 0xe6],
        [0xbc, 0xa2],
      ],
    ],
    [[2, 5], "xx", []],
    [[2, 5], "xxx", []],
    [[5, 1], "x漢", [[0x78]]],
    [
      [0, 1, 5],
      "xx",
      [
        [0x20, 0xe6],
        [0xbc, 0xa2],
      ],
    ],
    [
      [0, 4, 5],
      "xx",
      [
        [0x20, 0xe6],
        [0xbc, 0xa2],
      ],
    ],
  ];
  for (const [ids, stop, bytes] of cases) {
    const pieces = streamed(tokenizer, [], ids, [stop], CERTAIN);
    t.deepEqual(listBytes(pieces), bytes, `${ids.join()} ${stop}`);
    t.is(Buffer.from(bytes.flat()).toString(), joined(pieces), `${ids.join()} ${stop}`);
  }
});

test("alternatives have their own bytes, and an id that is not a token has none", (t) => {
  const tokenizer = new Tokenizer(byteFallback());
  const id = (token: string): number => tokenizer.tokenToId(token) as number;
  const top = [id("▁the"), 3 + 0xe6, id("</s>"), 99_999].map((token) => ({ token, logprob: -1 }));
  const [piece] = streamed(tokenizer, [], [id("a")], [], { logprob: 0, top });
  t.deepEqual(
    piece?.topLogprobs?.map(({ text, bytes }) => [text, [...bytes]]),
    [
      [" the", [...Buffer.from(" the")]],
      ["\ufffd", [0xe6]],
      ["</s>", [...Buffer.from("</s>")]],
      ["", []],
    ],
  );
});

test("without parts of characters, the bytes of a token are the bytes of its text", (t) => {
  const wordpiece = join(import.meta.dirname, "../parity/goldens/encodings/wordpiece/tokenizer.json");
  const tokenizer = new Tokenizer(wordpiece);
  t.is(tokenizer.tokenBytes, undefined);
  const ids = [...tokenizer.encode("the whale")];
  const top = ids.slice(1, 2).map((token) => ({ token, logprob: -1 }));
  const pieces = streamed(tokenizer, [], ids, [], { logprob: 0, top });
  t.is(Buffer.from(listBytes(pieces).flat()).toString(), joined(pieces));
  const [other] = pieces[0]?.topLogprobs ?? [];
  t.is(Buffer.from(other?.bytes ?? []).toString(), other?.text ?? "");
  t.not(other?.text, "");
});
