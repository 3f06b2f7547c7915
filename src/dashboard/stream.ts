/**
 * A page's server-sent events: the lines of some runs' files, from the page's position on. The server keeps only the
 * position in each file, and sends it as the ID of each message; a page that reconnects returns it and misses nothing.
 */
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { setTimeout as later } from "node:timers/promises";

import { readLines, readHeader } from "../runs/events-file.js";
import { identifyFile } from "../runs/summary.js";

/** The maximum bytes of lines in a message; a single longer line is sent anyway. */
const MESSAGE_BYTES = 2 ** 16;
/** Milliseconds between two reads at the end of the files; lines that arrive meanwhile share a message. */
const POLL_MS = 250;
/** Milliseconds without a message after which a comment is sent to keep the connection alive. */
const SILENCE_MS = 15_000;
/** Milliseconds that a page has to receive a message. A slower one is disconnected and continues after reconnecting. */
const PATIENCE_MS = 30_000;

/** A run to follow. */
export interface Followed {
  name: string;
  /** Returns the current path of its file; undefined before it exists. */
  file: () => string | undefined;
}

interface StreamPosition {
  /** The identity of the file that the offset belongs to. */
  identity: string;
  offset: number;
}

/** Parses a message's ID into one position per run; an invalid part stands for the beginning. */
export function parsePositions(id: string, count: number): StreamPosition[] {
  const parts = id.split(",");
  return Array.from({ length: count }, (_, i) => {
    const [, identity = "", offset = "0"] = /^([0-9a-f]+-\d+):(\d{1,15})$/.exec(parts[i] ?? "") ?? [];
    return { identity, offset: Number(offset) };
  });
}

export class EventStream {
  readonly #response: ServerResponse;
  readonly #runs: readonly Followed[];
  readonly #places: StreamPosition[];
  readonly #patience: number;
  readonly #closing = new AbortController();
  #lastWrite = performance.now();
  #passes: (() => void)[] = [];
  #wake: () => void = () => {};

  /**
   * `from` is the ID of the last message that the page has received; empty for none. `patience` is the number of
   * milliseconds that it has to receive a message.
   */
  constructor(response: ServerResponse, runs: readonly Followed[], from: string, patience = PATIENCE_MS) {
    this.#patience = patience;
    this.#response = response;
    this.#runs = runs;
    this.#places = parsePositions(from, runs.length);
    response.on("close", () => this.close());
    response.on("error", () => this.close());
  }

  /** Sends events until the page disconnects or `close` is called. */
  async send(): Promise<void> {
    try {
      await this.#write("retry: 1000\n\n");
      while (!this.#closing.signal.aborted) {
        // Callers of `waitForPages` that arrive during this pass need another one, because it may miss their lines.
        const waiting = this.#passes.length;
        let hasMore = false;
        for (const [i, run] of this.#runs.entries()) hasMore = (await this.#sendNew(i, run)) || hasMore;
        if (hasMore) continue;
        // Written bytes reach the operating system in the next turn of the event loop.
        if (waiting > 0) await later(0);
        for (const passed of this.#passes.splice(0, waiting)) passed();
        await this.#waitForLines();
        if (performance.now() - this.#lastWrite > SILENCE_MS) await this.#write(": here\n\n");
      }
    } catch {
      // The page is slow or gone, or a file is unreadable. The page reconnects, and the list of runs reports the error.
    } finally {
      this.close();
      for (const passed of this.#passes.splice(0)) passed();
      this.#response.destroy();
    }
  }

  /** Resolves when the present content of the files has been sent. */
  waitForPages(): Promise<void> {
    if (this.#closing.signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      this.#passes.push(resolve);
      this.#wake();
    });
  }

  close(): void {
    this.#closing.abort();
    this.#wake();
  }

  async #waitForLines(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (this.#closing.signal.aborted || this.#passes.length > 0) resolve();
      else setTimeout(resolve, POLL_MS).unref();
    });
  }

  /** Sends a message with a run's new lines; returns whether there are more. */
  async #sendNew(i: number, { name, file: where }: Followed): Promise<boolean> {
    const file = where();
    const header = file === undefined ? undefined : await readHeader(file).catch(() => undefined);
    if (file === undefined || header === undefined) return false;
    const identity = identifyFile(header);
    let place = this.#places[i] as StreamPosition;
    // The file was replaced, by a resumed run or another run: the page starts from the beginning.
    const begin = place.identity !== identity;
    if (begin) place = { identity, offset: 0 };
    const lines: string[] = [];
    let bytes = 0;
    for await (const line of readLines(file, place.offset)) {
      place = { identity, offset: place.offset + line.length };
      lines.push(`data: ${line.bytes.toString("utf8").replaceAll("\r", "").trimEnd()}\n`);
      bytes += line.length;
      if (bytes >= MESSAGE_BYTES) break;
    }
    if (lines.length === 0) return false;
    this.#places[i] = place;
    const id = this.#places.map(({ identity, offset }) => `${identity}:${offset}`).join(",");
    await this.#write(`id: ${id}\ndata: ${JSON.stringify({ run: name, begin })}\n${lines.join("")}\n`);
    return bytes >= MESSAGE_BYTES;
  }

  async #write(text: string): Promise<void> {
    this.#lastWrite = performance.now();
    if (this.#response.write(text)) return;
    const { signal } = this.#closing;
    const slow = AbortSignal.timeout(this.#patience);
    await once(this.#response, "drain", { signal: AbortSignal.any([signal, slow]) });
    await later(0);
  }
}
