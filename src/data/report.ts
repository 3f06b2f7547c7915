/** Reports on a source's rows after tokenisation. */
import { optionName, optionSetting } from "../arguments/option-name.js";
import { type Numbering, type Origin, describeRowShortly } from "./source/origin.js";

/** Row counts of a data file, or of rows in memory. */
export interface DataReport {
  /** The data file; `data` or `evalData` for rows in memory. */
  file: string;
  /** How rows are numbered: by lines, by rows from 1, or by an array's index. */
  numbering: Numbering;
  /** Rows in the file; for a running text, blocks. */
  rows: number;
  /** Rows longer than the maximum length, which were truncated and are trained on. */
  cut: number;
  /** Truncated rows that lost more than half of their tokens. */
  mostlyCut: number;
  /** Skipped rows, without trained tokens. */
  dropped: number;
  /** The first row of each kind, by its number. */
  first: {
    /** The first truncated row. */
    cut?: number | undefined;
    /** The first row that lost more than half of its tokens. */
    mostlyCut?: number | undefined;
    /** The first skipped row. */
    dropped?: number | undefined;
  };
  /** Rows with an empty text, completion or answer; undefined if there are none. */
  empty?: CountedRows | undefined;
  /** Rows with a field that was ignored because it repeats the others; undefined if there are none. */
  copied?: CopiedRows | undefined;
  /** Unknown fields, which are not used, in the order of their first use; undefined if there are none. */
  unused?: UnusedField[] | undefined;
  /** Findings about conversations; undefined if the file has none. */
  chat?: ChatReport | undefined;
  /** Positions at which a running text was split although the whole text could have other ids there. */
  roughCuts: number;
}

/** Rows with an ignored field. */
export interface CopiedRows extends CountedRows {
  /** The ignored field. */
  field: string;
}

/** Rows of some kind. */
export interface CountedRows {
  /** The number of rows. */
  rows: number;
  /** The number of the first row. */
  first: number;
}

/** Rows with an unknown field. */
export interface UnusedField extends CountedRows {
  /** The field's name. */
  field: string;
}

/** Counts of conversations in a data file. */
export interface ChatReport {
  /** Rows in ShareGPT's format. */
  sharegpt: number;
  /** Rows in Alpaca's format. */
  alpaca: number;
  /** Rows of prompt and completion that the chat template writes. */
  prompt: number;
  /** Rows trained on their last assistant turn only, because earlier ones were not found in the text. */
  lastTurnOnly: number;
  /** Rows in whose text no assistant turn was found, although they have one. */
  notFound: number;
  /** Rows without an assistant turn. */
  silent: number;
  /** Rows trained on completely, although they have other turns too. */
  whole: number;
  /** Rows truncated after the last assistant turn that fits completely. */
  shortened: number;
  /** Rows whose first assistant turn does not fit. */
  tooLong: number;
  /** Rows skipped because the template ignores a tool call. */
  callsIgnored: number;
  /** Rows skipped because all assistant turns have weight 0. */
  unweighted: number;
  /** Rows trained on without their `tools`, which the template ignores. */
  toolsIgnored: number;
  /** Rows trained on without a message of another role, which the template ignores. */
  messageIgnored: number;
  /** The first row of each kind, by its number. */
  first: Partial<Record<Exclude<keyof ChatReport, "first">, number>>;
}

/** Counts row `line` as of this kind. */
export function countChat(report: DataReport, kind: Exclude<keyof ChatReport, "first">, line: number): void {
  report.chat ??= {
    sharegpt: 0,
    alpaca: 0,
    prompt: 0,
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

export function createReport({ file, numbering }: Origin): DataReport {
  return { file, numbering, rows: 0, cut: 0, mostlyCut: 0, dropped: 0, first: {}, roughCuts: 0 };
}

/**
 * Counts row `line` with `total` tokens, at most `maxLength` of them kept, and `trained` trained tokens. A row is either
 * skipped or truncated.
 */
export function countRow(
  report: DataReport,
  line: number,
  { total, maxLength, trained }: { total: number; maxLength: number; trained: number },
): void {
  report.rows++;
  if (trained === 0) {
    report.dropped++;
    report.first.dropped ??= line;
    return;
  }
  if (total > maxLength) {
    report.cut++;
    report.first.cut ??= line;
    if (maxLength < total / 2) {
      report.mostlyCut++;
      report.first.mostlyCut ??= line;
    }
  }
}

/** Counts a row whose field `field` was ignored because it repeats the others. */
export function countCopy(report: DataReport, line: number, field: string): void {
  report.copied ??= { rows: 0, first: line, field };
  report.copied.rows++;
}

/** The number of unknown fields that are counted: rows may use names as keys of a table. */
const MOST_UNUSED = 100;

/** Counts a row's unknown fields. */
export function countUnused(report: DataReport, line: number, fields: readonly string[] = []): void {
  for (const field of fields) countUnusedField(report, { field, rows: 1, first: line });
}

function countUnusedField(report: DataReport, added: UnusedField): void {
  const known = report.unused?.find(({ field }) => field === added.field);
  if (known !== undefined) known.rows += added.rows;
  else if ((report.unused ??= []).length < MOST_UNUSED) report.unused.push({ ...added });
}

/** Counts a row that is trained on although its text, completion or answer is empty. */
export function countEmpty(report: DataReport, line: number): void {
  report.empty ??= { rows: 0, first: line };
  report.empty.rows++;
}

/** Returns the report of a source from the reports of its parts, in the source's order. */
export function joinReports(parts: readonly DataReport[]): DataReport {
  const [{ file, numbering }] = parts as [DataReport];
  const joined = createReport({ file, numbering });
  for (const { rows, cut, mostlyCut, dropped, roughCuts, first, empty, copied, unused, chat } of parts) {
    joined.rows += rows;
    joined.cut += cut;
    joined.mostlyCut += mostlyCut;
    joined.dropped += dropped;
    joined.roughCuts += roughCuts;
    joined.first = { ...first, ...joined.first };
    if (empty !== undefined) joined.empty = addRows(joined.empty, empty);
    if (copied !== undefined) joined.copied = addRows(joined.copied, copied);
    for (const field of unused ?? []) countUnusedField(joined, field);
    if (chat !== undefined) joined.chat = addChats(joined.chat, chat);
  }
  return joined;
}

function addRows<T extends CountedRows>(before: T | undefined, added: T): T {
  return before === undefined ? { ...added } : { ...before, rows: before.rows + added.rows };
}

function addChats(before: ChatReport | undefined, added: ChatReport): ChatReport {
  if (before === undefined) return added;
  const sums = { ...before, first: { ...added.first, ...before.first } };
  for (const kind of Object.keys(added) as (keyof ChatReport)[])
    if (kind !== "first") sums[kind] += added[kind];
  return sums;
}

/** Returns the notice about a maximum length that exceeds the model's. */
export function describeLoweredLength(requested: number, maxLength: number): string {
  return `${optionName("maxLength")} is ${requested}, but the model reads at most ${maxLength} tokens: rows are truncated to ${maxLength}`;
}

/** The number of unknown fields that a warning names. */
const SHOWN_UNUSED = 8;

/** The limits of a row's length, in tokens. */
export interface LengthLimits {
  /** The maximum in this run. */
  maxLength: number;
  /** The maximum of the model. */
  modelLength: number;
}

/** Returns what to do about rows that are too long; `kept` is what a larger maximum keeps. */
function adviseLength({ maxLength, modelLength }: LengthLimits, kept: string): string {
  return maxLength < modelLength
    ? `a larger ${optionName("maxLength")}, up to the model's ${modelLength}, keeps ${kept}`
    : `the model reads at most ${modelLength} tokens, so split or shorten such rows`;
}

/** Returns the warnings about a source, one sentence each. */
export function listWarnings(report: DataReport, limits: LengthLimits): string[] {
  const { maxLength } = limits;
  const { file, rows, mostlyCut, first, roughCuts, chat } = report;
  // Conversations have separate warnings.
  const cut = report.cut - (chat?.shortened ?? 0);
  const dropped = report.dropped - (chat === undefined ? 0 : LEFT_OUT.reduce((n, kind) => n + chat[kind], 0));
  const formatShare = (n: number): string => `${n} of ${rows} rows`;
  const firstRow = (number: number | undefined): string => `first ${describeRowShortly(report, number ?? 0)}`;
  const warnings: string[] = [];
  if (cut > 0) {
    const most =
      mostlyCut > 0 ? `, ${mostlyCut} of them by more than half (${firstRow(first.mostlyCut)})` : "";
    warnings.push(
      `${file}: ${formatShare(cut)} ${cut === 1 ? "is" : "are"} longer than ${maxLength} tokens and truncated (${firstRow(first.cut)})${most}; ` +
        adviseLength(limits, "more of them"),
    );
  }
  if (dropped > 0) {
    warnings.push(
      `${file}: ${formatShare(dropped)} ${dropped === 1 ? "is" : "are"} skipped (${firstRow(first.dropped)}): nothing to train on within ${maxLength} tokens`,
    );
  }
  const { empty, copied, unused } = report;
  if (empty !== undefined)
    warnings.push(
      `${file}: ${formatShare(empty.rows)} (${firstRow(empty.first)}) have an empty text, completion or answer: only its end token is trained on`,
    );
  if (copied !== undefined)
    warnings.push(
      `${file}: ${formatShare(copied.rows)} (${firstRow(copied.first)}) have a "${copied.field}" that repeats the other fields; it is ignored`,
    );
  if (unused !== undefined) {
    const fields = unused
      .slice(0, SHOWN_UNUSED)
      .map(
        ({ field, rows: count, first: number }) =>
          `${JSON.stringify(field)} in ${count} of ${rows} rows (${firstRow(number)})`,
      );
    const others = unused.length - fields.length;
    if (others > 0)
      fields.push(`${others === MOST_UNUSED - SHOWN_UNUSED ? "at least " : ""}${others} others`);
    warnings.push(`${file}: unknown fields are not used: ${fields.join(", ")}`);
  }
  if (chat !== undefined) warnings.push(...listChatWarnings(report, chat, limits));
  if (roughCuts > 0) {
    warnings.push(
      `${file}: the text was split at ${roughCuts} ${roughCuts === 1 ? "position" : "positions"} for tokenisation, which this tokenizer may not allow; ` +
        "a token or two may differ there from the whole text's",
    );
  }
  return warnings;
}

type ChatKind = Exclude<keyof ChatReport, "first">;

/** Kinds of skipped conversations. */
const LEFT_OUT: readonly ChatKind[] = ["silent", "notFound", "tooLong", "callsIgnored", "unweighted"];

/** Returns the reasons for skipped conversations, one sentence each. */
export function listSkippedWarnings(report: DataReport, limits: LengthLimits): string[] {
  return report.chat === undefined ? [] : listChatWarnings(report, report.chat, limits, LEFT_OUT);
}

/** Returns how to train rows of prompt and completion without the chat template. */
export function adviseRaw(): string {
  return `${optionSetting("promptFormat", "raw")} trains the plain texts`;
}

/** Returns the warnings about conversations, one sentence each. */
function listChatWarnings(
  report: DataReport,
  chat: ChatReport,
  limits: LengthLimits,
  kinds?: readonly ChatKind[],
): string[] {
  const { file, rows } = report;
  const { maxLength } = limits;
  const sentences: [kind: ChatKind, what: string][] = [
    ["sharegpt", "read in ShareGPT's format: from is the role, value the content"],
    ["alpaca", "read in Alpaca's format: instruction and input are the user's turn, output the assistant's"],
    ["prompt", `written by the chat template, as a user's prompt and its answer; ${adviseRaw()}`],
    [
      "lastTurnOnly",
      "trained only on the assistant's last turn: the template writes earlier turns differently",
    ],
    ["notFound", "skipped: no assistant turn was found in the rendered text"],
    ["silent", "skipped: there is no assistant turn"],
    ["whole", "trained on completely: the rendered text contains only the assistant's turns"],
    ["shortened", `truncated after the last assistant turn that fits in ${maxLength} tokens`],
    [
      "tooLong",
      `skipped: the first assistant turn ends after ${maxLength} tokens; ${adviseLength(limits, "them")}`,
    ],
    [
      "callsIgnored",
      `skipped: the chat template ignores their tool calls; use a template for tools with ${optionName("chatTemplate")}`,
    ],
    ["unweighted", "skipped: every assistant turn has weight 0"],
    [
      "toolsIgnored",
      `trained on without their tools: the chat template ignores them; use a template for tools with ${optionName("chatTemplate")}`,
    ],
    [
      "messageIgnored",
      "trained on without one of their messages, such as the system message: the chat template ignores it",
    ],
  ];
  return sentences.flatMap(([kind, what]) =>
    chat[kind] === 0 || kinds?.includes(kind) === false
      ? []
      : [
          `${file}: ${chat[kind]} of ${rows} rows (first ${describeRowShortly(report, chat.first[kind] ?? 0)}) ${what}`,
        ],
  );
}
