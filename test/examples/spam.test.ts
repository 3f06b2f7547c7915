import fc from "fast-check";
import test from "ava";
import { bodyOf } from "../../examples/spam/mail.js";
import { type Row, split } from "../../examples/spam/split.js";

const lines = (...text: string[]): string => text.join("\n");

const mails: [name: string, mail: string, body: string][] = [
  [
    "continued headers are not text",
    lines("From: a", "Subject: b", "\tc: d", "", "One", "  two."),
    "One two.",
  ],
  ["a mail without an end of its headers has no text", "Subject: nothing", ""],
  ["CRLF", "Subject: a\r\n\r\nOne\r\ntwo\r\n", "One two"],
  ["only the first empty line ends the headers", lines("A: b", "", "One:", "", "two"), "One: two"],
  [
    "base64",
    lines("Content-Transfer-Encoding: Base64", "", Buffer.from("One two").toString("base64")),
    "One two",
  ],
  [
    "quoted-printable",
    lines("Content-Transfer-Encoding: quoted-printable", "", "a=3Db, on=", "e =e9"),
    "a=b, one é",
  ],
  [
    "markup",
    lines(
      "Content-Type: text/html",
      "",
      "<html><style>p {}</style><!-- no --><p>One &amp; <b>two</b>&nbsp;</p>&unknown;",
    ),
    "One & two &unknown;",
  ],
  ["markup that the headers don't declare", lines("A: b", "", "<HTML><p>One"), "One"],
  [
    "the plain one of several parts, without its headers",
    lines(
      'Content-Type: multipart/alternative; boundary="=_x"',
      "",
      "for readers of old",
      "--=_x",
      "Content-Type: text/html",
      "",
      "<p>markup",
      "--=_x",
      "Content-Type: text/plain",
      "Content-Transfer-Encoding: quoted-printable",
      "",
      "One=20two",
      "--=_x--",
      "after",
    ),
    "One two",
  ],
  [
    "nested parts; parts that are not text are skipped",
    lines(
      "Content-Type: multipart/mixed;",
      " boundary=out",
      "",
      "--out",
      "Content-Type: multipart/alternative; boundary=in",
      "",
      "--in",
      "Content-Type: text/html",
      "",
      "<p>One</p>",
      "--in--",
      "--out",
      "Content-Type: image/png",
      "",
      "iVBO",
      "--out--",
    ),
    "One",
  ],
];

for (const [name, mail, body] of mails) {
  test(`a mail's text: ${name}`, (t) => {
    t.is(bodyOf(mail), body);
  });
}

const rows = fc.array(
  fc.record({ text: fc.integer({ min: 0, max: 60 }).map(String), label: fc.constantFrom("ham", "spam") }),
  { minLength: 20, maxLength: 200 },
);

test("no row is lost, no text is in both parts, and the order of rows has no effect", (t) => {
  fc.assert(
    fc.property(rows, fc.integer({ min: 0, max: 9 }), (all: Row[], seed) => {
      const { train, test: held } = split(all, 0.2, seed);
      t.is(train.length + held.length, all.length);
      const texts = new Set(train.map(({ text }) => text));
      t.false(held.some(({ text }) => texts.has(text)));
      const again = split([...all].reverse(), 0.2, seed);
      t.deepEqual(new Set(again.test.map(({ text }) => text)), new Set(held.map(({ text }) => text)));
    }),
  );
});

test("a fifth of each label is held out, by the seed", (t) => {
  const all = Array.from({ length: 1000 }, (_, i) => ({ text: `${i}`, label: i % 4 === 0 ? "spam" : "ham" }));
  const [first, second] = [split(all, 0.2, 0), split(all, 0.2, 1)];
  for (const { test: held } of [first, second]) {
    t.is(held.filter(({ label }) => label === "spam").length, 50);
    t.is(held.filter(({ label }) => label === "ham").length, 150);
  }
  t.notDeepEqual(first.test, second.test);
});
