/** What became of a file's rows when they were tokenised. */

/** Rows of a data file, counted. */
export interface DataReport {
  /** The data file. */
  file: string;
  /** Rows in the file; blocks of a running text. */
  rows: number;
  /** Longer than the maximal length, and cut behind it. */
  cut: number;
  /** Those of them of which more than half of the tokens is lost. */
  mostlyCut: number;
  /** Left out, since nothing of them is trained on. */
  dropped: number;
  /** The first of each kind, by line. */
  first: {
    /** The line of the first row that was cut. */
    cut?: number | undefined;
    /** The line of the first row that was cut by more than half. */
    mostlyCut?: number | undefined;
    /** The line of the first row that was left out. */
    dropped?: number | undefined;
  };
  /** Places where a running text was cut although its ids may differ there from those of the whole. */
  roughCuts: number;
}

export function emptyReport(file: string): DataReport {
  return { file, rows: 0, cut: 0, mostlyCut: 0, dropped: 0, first: {}, roughCuts: 0 };
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

/** What there is to tell of a maximal length that is over the model's. */
export function loweredLength(asked: number, maxLength: number): string {
  return `max-length is ${asked}, and the model reads at most ${maxLength} tokens: rows are cut to ${maxLength}`;
}

/** What there is to tell of it, a sentence each. */
export function warningsOf(report: DataReport, maxLength: number): string[] {
  const { file, rows, cut, mostlyCut, dropped, first, roughCuts } = report;
  const of = (n: number): string => `${n} of ${rows} rows`;
  const warnings: string[] = [];
  if (cut > 0) {
    const most =
      mostlyCut > 0 ? `, ${mostlyCut} of them by more than half (first line ${first.mostlyCut})` : "";
    warnings.push(
      `${file}: ${of(cut)} ${cut === 1 ? "is" : "are"} longer than ${maxLength} tokens and cut there (first line ${first.cut})${most}; ` +
        "a larger max-length keeps more of them",
    );
  }
  if (dropped > 0) {
    warnings.push(
      `${file}: ${of(dropped)} ${dropped === 1 ? "is" : "are"} left out (first line ${first.dropped}): nothing to train on within ${maxLength} tokens`,
    );
  }
  if (roughCuts > 0) {
    warnings.push(
      `${file}: the text was cut at ${roughCuts} ${roughCuts === 1 ? "place" : "places"} to be tokenised, since this tokenizer is not known to allow it; ` +
        "a token or two there may differ from those of the whole text",
    );
  }
  return warnings;
}
