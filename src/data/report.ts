/** What became of a source's rows when they were tokenised. */
import { optionName } from "../option-name.js";
import { type Numbering, type Origin, shortRowAt } from "./origin.js";

/** Rows of a data file, or of rows in memory, counted. */
export interface DataReport {
  /** The data file; `data` or `evalData` for rows in memory. */
  file: string;
  /** How rows are numbered: by lines, by rows from 1, or by an array's index. */
  numbering: Numbering;
  /** Rows in the file; blocks of a running text. */
  rows: number;
  /** Longer than the maximal length, and cut behind it. */
  cut: number;
  /** Those of them of which more than half of the tokens is lost. */
  mostlyCut: number;
  /** Left out, since nothing of them is trained on. */
  dropped: number;
  /** The first row of each kind, by its number. */
  first: {
    /** The first row that was cut. */
    cut?: number | undefined;
    /** The first row that was cut by more than half. */
    mostlyCut?: number | undefined;
    /** The first row that was left out. */
    dropped?: number | undefined;
  };
  /** Rows whose text, completion or answer is empty; undefined if there are none. */
  empty?: CountedRows | undefined;
  /** Rows with a field that was ignored, since it holds the others written out; undefined if there are none. */
  copied?: CopiedRows | undefined;
  /** What was found in conversations; undefined where the file has none. */
  chat?: ChatReport | undefined;
  /** Places where a running text was cut although its ids may differ there from those of the whole. */
  roughCuts: number;
}

/** Rows with an ignored field. */
export interface CopiedRows extends CountedRows {
  /** The ignored field. */
  field: string;
}

/** Rows of some kind. */
export interface CountedRows {
  /** How many there are. */
  rows: number;
  /** The number of the first row. */
  first: number;
}

/** Conversations of a data file, counted. */
export interface ChatReport {
  /** Rows that spell them as ShareGPT's do. */
  sharegpt: number;
  /** Rows that spell them as Alpaca's do. */
  alpaca: number;
  /** Rows of which only the last turn of the assistant was found in the text, and is trained on. */
  lastTurnOnly: number;
  /** Rows in whose text no turn of the assistant was found, though they have one. */
  notFound: number;
  /** Rows without a turn of the assistant. */
  silent: number;
  /** Rows of which every token is trained on, though not all is the assistant's. */
  whole: number;
  /** Rows that end behind the last turn of the assistant that fits whole. */
  shortened: number;
  /** Rows of which not even the first turn fits. */
  tooLong: number;
  /** Rows left out because the template does not write a tool call of theirs. */
  callsIgnored: number;
  /** Rows left out because every turn of the assistant has weight 0. */
  unweighted: number;
  /** Rows whose `tools` the template does not write; they are trained on without. */
  toolsIgnored: number;
  /** Rows with a message, not the assistant's, that the template does not write; they are trained on without. */
  messageIgnored: number;
  /** The first row of each kind, by its number. */
  first: Partial<Record<Exclude<keyof ChatReport, "first">, number>>;
}

/** Counts a row of `line` as of this kind. */
export function countChat(report: DataReport, kind: Exclude<keyof ChatReport, "first">, line: number): void {
  report.chat ??= {
    sharegpt: 0,
    alpaca: 0,
    lastTurnOnly: 0,
    notFound: 0,
    silent: 0,
    whole: 0,
    shortened: 0,
    tooLong: 0,
    callsIgnored: 0,
    unweighted: 0,
    toolsIgnored: 0,
    messageIgnored: 0,
    first: {},
  };
  report.chat[kind]++;
  report.chat.first[kind] ??= line;
}

export function emptyReport({ file, numbering }: Origin): DataReport {
  return { file, numbering, rows: 0, cut: 0, mostlyCut: 0, dropped: 0, first: {}, roughCuts: 0 };
}

/** Counts a row of `line`: `total` tokens of which at most `maxLength` are kept, `trained` of them trained on. */
export function countRow(
  report: DataReport,
  line: number,
  { total, maxLength, trained }: { total: number; maxLength: number; trained: number },
): void {
  report.rows++;
  if (total > maxLength) {
    report.cut++;
    report.first.cut ??= line;
    if (maxLength < total / 2) {
      report.mostlyCut++;
      report.first.mostlyCut ??= line;
    }
  }
  if (trained > 0) return;
  report.dropped++;
  report.first.dropped ??= line;
}

/** Counts a row whose field `field` was ignored, since it holds the others written out. */
export function countCopy(report: DataReport, line: number, field: string): void {
  report.copied ??= { rows: 0, first: line, field };
  report.copied.rows++;
}

/** Counts a row that is trained on although its text, completion or answer is empty. */
export function countEmpty(report: DataReport, line: number): void {
  report.empty ??= { rows: 0, first: line };
  report.empty.rows++;
}

/** What there is to tell of a maximal length that is over the model's. */
export function loweredLength(asked: number, maxLength: number): string {
  return `${optionName("maxLength")} is ${asked}, and the model reads at most ${maxLength} tokens: rows are cut to ${maxLength}`;
}

/** What there is to tell of it, a sentence each. */
export function warningsOf(report: DataReport, maxLength: number): string[] {
  const { file, rows, mostlyCut, first, roughCuts, chat } = report;
  // Of conversations there is more to tell.
  const cut = report.cut - (chat?.shortened ?? 0);
  const dropped = report.dropped - (chat === undefined ? 0 : LEFT_OUT.reduce((n, kind) => n + chat[kind], 0));
  const of = (n: number): string => `${n} of ${rows} rows`;
  const firstRow = (number: number | undefined): string => `first ${shortRowAt(report, number ?? 0)}`;
  const warnings: string[] = [];
  if (cut > 0) {
    const most =
      mostlyCut > 0 ? `, ${mostlyCut} of them by more than half (${firstRow(first.mostlyCut)})` : "";
    warnings.push(
      `${file}: ${of(cut)} ${cut === 1 ? "is" : "are"} longer than ${maxLength} tokens and cut there (${firstRow(first.cut)})${most}; ` +
        `a larger ${optionName("maxLength")} keeps more of them`,
    );
  }
  if (dropped > 0) {
    warnings.push(
      `${file}: ${of(dropped)} ${dropped === 1 ? "is" : "are"} left out (${firstRow(first.dropped)}): nothing to train on within ${maxLength} tokens`,
    );
  }
  const { empty, copied } = report;
  if (empty !== undefined)
    warnings.push(
      `${file}: ${of(empty.rows)} (${firstRow(empty.first)}) have an empty text, completion or answer: only its end token is trained on`,
    );
  if (copied !== undefined)
    warnings.push(
      `${file}: ${of(copied.rows)} (${firstRow(copied.first)}) have a "${copied.field}" that holds the other fields written out; it is ignored`,
    );
  if (chat !== undefined) warnings.push(...chatWarnings(report, chat, maxLength));
  if (roughCuts > 0) {
    warnings.push(
      `${file}: the text was cut at ${roughCuts} ${roughCuts === 1 ? "place" : "places"} to be tokenised, since this tokenizer is not known to allow it; ` +
        "a token or two there may differ from those of the whole text",
    );
  }
  return warnings;
}

type ChatKind = Exclude<keyof ChatReport, "first">;

/** Kinds of conversations that are left out. */
const LEFT_OUT: readonly ChatKind[] = ["silent", "notFound", "tooLong", "callsIgnored", "unweighted"];

/** Why conversations are left out, a sentence each. */
export function leftOutWarnings(report: DataReport, maxLength: number): string[] {
  return report.chat === undefined ? [] : chatWarnings(report, report.chat, maxLength, LEFT_OUT);
}

/** What there is to tell of conversations, a sentence each. */
function chatWarnings(
  report: DataReport,
  chat: ChatReport,
  maxLength: number,
  kinds?: readonly ChatKind[],
): string[] {
  const { file, rows } = report;
  const sentences: [kind: ChatKind, what: string][] = [
    ["sharegpt", "read as ShareGPT's conversations: from is the role, value the content"],
    ["alpaca", "read as Alpaca's: instruction and input are the user's turn, output the assistant's"],
    [
      "lastTurnOnly",
      "trained on the last turn of the assistant alone: the template writes earlier turns in another way",
    ],
    ["notFound", "left out: no turn of the assistant was found in the text that the template makes"],
    ["silent", "left out: no message is the assistant's"],
    ["whole", "trained on whole: the template's text has nothing but the assistant's turns"],
    ["shortened", `cut behind the last turn of the assistant that fits in ${maxLength} tokens`],
    [
      "tooLong",
      `left out: their first turn of the assistant ends behind ${maxLength} tokens; a larger ${optionName("maxLength")} keeps them`,
    ],
    [
      "callsIgnored",
      `left out: the chat template does not write their tool calls; use a template for tools with ${optionName("chatTemplate")}`,
    ],
    ["unweighted", "left out: every turn of the assistant has weight 0"],
    [
      "toolsIgnored",
      `trained on without their tools: the chat template does not write them; use a template for tools with ${optionName("chatTemplate")}`,
    ],
    [
      "messageIgnored",
      "trained on without one of their messages, such as the system's: the chat template does not write it",
    ],
  ];
  return sentences.flatMap(([kind, what]) =>
    chat[kind] === 0 || kinds?.includes(kind) === false
      ? []
      : [
          `${file}: ${chat[kind]} of ${rows} rows (first ${shortRowAt(report, chat.first[kind] ?? 0)}) ${what}`,
        ],
  );
}
