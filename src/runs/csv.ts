/** `metrics.csv`: one row per step, including the evaluation after it. */
import type { RecordedEvent } from "./events-file.js";
import { type MetricsFormat, readNumber } from "./metrics.js";

/** The columns, with the field of a step's event for each. `eval_loss` comes from the evaluation instead. */
const COLUMNS = {
  step: "step",
  time: "at",
  loss: "loss",
  eval_loss: undefined,
  learning_rate: "learningRate",
  grad_norm: "gradNorm",
  tokens: "tokens",
  tokens_per_second: "tokensPerSecond",
  memory_bytes: "memoryBytes",
} as const;
type Column = keyof typeof COLUMNS;
const HEAD = `${Object.keys(COLUMNS).join(",")}\n`;

/** Writes the CSV format. A row is held back until the evaluation of its step may have come. */
export class CsvFormat implements MetricsFormat {
  readonly name = "metrics.csv";
  #row: Partial<Record<Column, number | string>> | undefined;

  isOwn(beginning: Buffer): boolean {
    return beginning.toString("utf8").startsWith(HEAD);
  }

  encodeHead(): Buffer {
    return Buffer.from(HEAD);
  }

  add(event: RecordedEvent): Buffer {
    const step = readNumber(event, "step");
    if (step === undefined || (event.type !== "step" && event.type !== "eval")) return Buffer.alloc(0);
    const before = this.#row?.step === step ? Buffer.alloc(0) : this.takeRest();
    this.#row ??= { step, time: formatTime(event) };
    if (event.type === "eval") this.#row.eval_loss = readNumber(event, "loss") ?? "";
    else {
      for (const [column, field] of Object.entries(COLUMNS) as [Column, string | undefined][])
        if (field !== undefined && field !== "at") this.#row[column] = readNumber(event, field) ?? "";
    }
    return before;
  }

  takeRest(): Buffer {
    const row = this.#row;
    this.#row = undefined;
    if (row === undefined) return Buffer.alloc(0);
    const cells = (Object.keys(COLUMNS) as Column[]).map((column) => row[column] ?? "");
    return Buffer.from(`${cells.join(",")}\n`);
  }
}

function formatTime({ at }: RecordedEvent): string {
  return new Date(at).toISOString();
}
