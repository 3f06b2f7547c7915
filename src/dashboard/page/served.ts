/** The runs of the server that served the page, at addresses below the page's. */
import type { Listing, RunEvent, RunsSource } from "./source.js";

/** Milliseconds until the first attempt to reconnect. */
const SOON = 1000;
/** The maximum milliseconds between attempts to reconnect. */
const LATE = 15_000;

export class ServedRuns implements RunsSource {
  /** The position in each run's file, in the server's format. */
  readonly #places = new Map<string, string>();

  async list(): Promise<Listing> {
    const answer = await fetch("runs");
    if (!answer.ok) throw new Error(await answer.text());
    return (await answer.json()) as Listing;
  }

  stop(): Promise<void> {
    return post("stop");
  }

  pause(): Promise<void> {
    return post("pause");
  }

  resume(): Promise<void> {
    return post("resume");
  }

  watch(...[runs, sink, onConnection]: Parameters<RunsSource["watch"]>): () => void {
    let source: EventSource | undefined;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let wait = SOON;
    // The page discards a run's history when it shows the run again, so that all events are needed.
    for (const run of runs) this.#places.delete(run);
    const connect = (): void => {
      const query = new URLSearchParams(runs.map((run) => ["run", run]));
      query.set("from", runs.map((run) => this.#places.get(run) ?? "").join(","));
      source = new EventSource(`events?${query.toString()}`);
      source.addEventListener("open", () => {
        wait = SOON;
        onConnection("connected");
      });
      source.addEventListener("message", ({ data, lastEventId }: MessageEvent<string>) => {
        const [head = "{}", ...lines] = data.split("\n");
        const { run, begin } = JSON.parse(head) as { run: string; begin: boolean };
        for (const [i, place] of lastEventId.split(",").entries()) this.#places.set(runs[i] ?? "", place);
        sink(run, lines.flatMap(parseEvent), begin);
      });
      source.addEventListener("error", () => {
        source?.close();
        onConnection("lost");
        timer = setTimeout(connect, wait);
        wait = Math.min(2 * wait, LATE);
      });
    };
    connect();
    return () => {
      clearTimeout(timer);
      source?.close();
    };
  }
}

async function post(what: string): Promise<void> {
  const answer = await fetch(what, { method: "POST" });
  if (!answer.ok) throw new Error(await answer.text());
}

/** Parses the event in a line. A damaged line is omitted; the list of runs counts it. */
function parseEvent(line: string): RunEvent[] {
  try {
    const value = JSON.parse(line) as Partial<RunEvent> | null;
    return typeof value === "object" && typeof value?.type === "string" ? [value as RunEvent] : [];
  } catch {
    return [];
  }
}
