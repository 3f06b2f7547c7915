/**
 * A viewer's server-sent events: the lines of some runs' files, from where the viewer is. Nothing is kept for a viewer
 * but where it is in each file, which each message carries as its id: who comes back says it, and misses nothing.
 */
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { setTimeout as later } from "node:timers/promises";

import { linesOf, readHeader } from "../runs/events-file.js";
import { identityOf } from "../runs/summary.js";

/** Bytes of lines in a message, but for one line that is longer. */
const MESSAGE_BYTES = 2 ** 16;
/** Milliseconds between two looks at files that were read to their ends: what comes meanwhile is one message. */
const POLL_MS = 250;
/** Milliseconds without a message after which a comment shows that the server is there. */
const SILENCE_MS = 15_000;
/** Milliseconds in which a viewer has to take a message; a slower one is cut off, and reads on when it is back. */
const PATIENCE_MS = 30_000;

/** A run to follow. */
export interface Followed {
  name: string;
  /** Where its file lies now; undefined as long as there is none. */
  file: () => string | undefined;
}

interface Place {
  /** Which file the offset is of. */
  identity: string;
  offset: number;
}

/** Places as a message's id, one a run; what is none is taken for the beginning. */
export function placesOf(id: string, count: number): Place[] {
  const parts = id.split(",");
  return Array.from({ length: count }, (_, i) => {
    const [, identity = "", offset = "0"] = /^([0-9a-f]+-\d+):(\d{1,15})$/.exec(parts[i] ?? "") ?? [];
    return { identity, offset: Number(offset) };
  });
}

export class EventStream {
  readonly #response: ServerResponse;
  readonly #runs: readonly Followed[];
  readonly #places: Place[];
  readonly #patience: number;
  readonly #closing = new AbortController();
  #told = performance.now();
  #passes: (() => void)[] = [];
  #wake: () => void = () => {};

  /**
   * `from` is the id of the last message that the viewer has got; empty for none. `patience` is how many milliseconds it
   * has to take a message.
   */
  constructor(response: ServerResponse, runs: readonly Followed[], from: string, patience = PATIENCE_MS) {
    this.#patience = patience;
    this.#response = response;
    this.#runs = runs;
    this.#places = placesOf(from, runs.length);
    response.on("close", () => this.close());
    response.on("error", () => this.close());
  }

  /** Sends until the viewer goes or `close` is called. */
  async send(): Promise<void> {
    try {
      await this.#write("retry: 1000\n\n");
      while (!this.#closing.signal.aborted) {
        // Whoever asks meanwhile means what this look may have missed.
        const asked = this.#passes.length;
        let more = false;
        for (const [i, run] of this.#runs.entries()) more = (await this.#follow(i, run)) || more;
        if (more) continue;
        // What was written goes to the system with the next turn of the event loop.
        if (asked > 0) await later(0);
        for (const passed of this.#passes.splice(0, asked)) passed();
        await this.#rest();
        if (performance.now() - this.#told > SILENCE_MS) await this.#write(": here\n\n");
      }
    } catch {
      // A viewer that is too slow or gone, or a file that cannot be read: it comes back, and is told by the list of runs.
    } finally {
      this.close();
      for (const passed of this.#passes.splice(0)) passed();
      this.#response.destroy();
    }
  }

  /** Resolves when all that is in the files now has been sent. */
  caughtUp(): Promise<void> {
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

  async #rest(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (this.#closing.signal.aborted || this.#passes.length > 0) resolve();
      else setTimeout(resolve, POLL_MS).unref();
    });
  }

  /** Sends a message of what a run has told since; returns whether there is more than fits into it. */
  async #follow(i: number, { name, file: where }: Followed): Promise<boolean> {
    const file = where();
    const header = file === undefined ? undefined : await readHeader(file).catch(() => undefined);
    if (file === undefined || header === undefined) return false;
    const identity = identityOf(header);
    let place = this.#places[i] as Place;
    // Another file has taken its place: a run that went on, or another run. The viewer begins anew.
    const begin = place.identity !== identity;
    if (begin) place = { identity, offset: 0 };
    const lines: string[] = [];
    let bytes = 0;
    for await (const line of linesOf(file, place.offset)) {
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
    this.#told = performance.now();
    if (this.#response.write(text)) return;
    const { signal } = this.#closing;
    const slow = AbortSignal.timeout(this.#patience);
    await once(this.#response, "drain", { signal: AbortSignal.any([signal, slow]) });
    await later(0);
  }
}
