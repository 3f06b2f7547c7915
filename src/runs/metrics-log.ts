/** Writes a run's figures in another format, in the same way as its events. */
import { open, readdir, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import { LowrankError } from "../errors.js";
import { makeFolder } from "../files/folders.js";
import { AppendedFile } from "./appended-file.js";
import { CsvFormat } from "./csv.js";
import type { RecordedEvent } from "./events-file.js";
import type { LogFormat, MetricsFormat } from "./metrics.js";
import { TensorboardFormat } from "./tfevents.js";

const SESSION = /^events\.out\.tfevents\.\d+\.\d+\.\d+\.lowrank(\.tmp-\d+)?$/;
/** The number of bytes read to recognise a file; longer than any header. */
const BEGINNING = 256;

/** Throws `ERR_OUTPUT_EXISTS` if a file that no run wrote has the log's name. */
export async function checkOwnLog(folder: string, format: LogFormat | undefined): Promise<void> {
  if (format !== "csv") return;
  const csv = new CsvFormat();
  const file = join(folder, csv.name);
  const beginning = await readBeginning(file);
  if (beginning === undefined || csv.isOwn(beginning)) return;
  const what = `${file}: not written by a run: its columns differ; move it away, or choose another folder`;
  throw new LowrankError("ERR_OUTPUT_EXISTS", what);
}

/** Reads the beginning of a file; undefined if the file does not exist. */
async function readBeginning(file: string): Promise<Buffer | undefined> {
  const handle = await open(file).catch(() => undefined);
  if (handle === undefined) return undefined;
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(BEGINNING), 0, BEGINNING, 0);
    return buffer.subarray(0, bytesRead);
  } catch {
    return Buffer.alloc(0);
  } finally {
    await handle.close();
  }
}

/** Removes the logs of other runs and of earlier parts of this run, except for `current`. */
export async function removeLogs(folder: string, current: string | undefined): Promise<void> {
  const csv = new CsvFormat();
  const file = join(folder, csv.name);
  const beginning = current === file ? undefined : await readBeginning(file);
  if (beginning !== undefined && csv.isOwn(beginning)) await rm(file, { force: true });
  const sessions = join(folder, TensorboardFormat.folder);
  for (const name of await readdir(sessions).catch(() => []))
    if (SESSION.test(name) && (current === undefined || name !== basename(current)))
      await rm(join(sessions, name), { force: true });
}

export class MetricsLog {
  /** The final path of the file. */
  readonly path: string;
  readonly #format: MetricsFormat;
  readonly #file: AppendedFile;

  constructor(folder: string, format: LogFormat, onFailure: (error: NodeJS.ErrnoException) => void) {
    this.#format = format === "csv" ? new CsvFormat() : new TensorboardFormat();
    this.path = join(folder, this.#format.name);
    this.#file = new AppendedFile(this.path, onFailure);
  }

  /** Creates the staging file, with the run's events that remain valid. */
  async begin(past: AsyncIterable<RecordedEvent>): Promise<void> {
    await makeFolder(dirname(this.path)).catch(() => {});
    await this.#file.begin(async (write) => {
      await write(this.#format.encodeHead());
      for await (const event of past) {
        const bytes = this.#format.add(event);
        if (bytes.length > 0) await write(bytes);
      }
    });
  }

  add(event: RecordedEvent): void {
    const bytes = this.#format.add(event);
    if (bytes.length > 0) this.#file.append(bytes);
  }

  moveIntoPlace(): Promise<void> {
    return this.#file.moveIntoPlace();
  }

  async close(): Promise<void> {
    const rest = this.#format.takeRest();
    if (rest.length > 0) this.#file.append(rest);
    await this.#file.close();
  }

  discard(): Promise<void> {
    return this.#file.discard();
  }
}
