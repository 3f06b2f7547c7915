/** Sends the chunks of a response as server-sent events. */
import type { ServerResponse } from "node:http";

/** The maximum bytes buffered for a slow client, which is disconnected beyond it. */
const MOST_WAITING = 4 << 20;

export class EventStream {
  constructor(private readonly response: ServerResponse) {}

  send(data: object): void {
    this.#write(JSON.stringify(data));
  }

  /** Ends the stream with the marker that client libraries expect. */
  end(): void {
    this.#write("[DONE]");
    this.response.end();
  }

  /** Ends the stream with an error, which client libraries throw. */
  fail(error: object): void {
    this.send(error);
    this.response.end();
  }

  #write(data: string): void {
    const { response } = this;
    if (!response.headersSent) {
      response.writeHead(200, {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-store",
        // Disables buffering in proxies (nginx).
        "X-Accel-Buffering": "no",
      });
    }
    response.write(`data: ${data}\n\n`);
    if (response.writableLength > MOST_WAITING) response.destroy();
  }
}
