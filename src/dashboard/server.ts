/** Serves a page about runs, to this machine only. */
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

import { LowrankError, readSystemCode } from "../errors.js";
import { LOOPBACK, drawToken } from "../http/local-access.js";
import { resolveInPackage } from "../package/files.js";
import { checkAccess, HEADERS } from "./access.js";
import type { RunSource } from "./sources.js";
import { EventStream } from "./stream.js";

/** The static files, by their path in the address. */
const FILES: Readonly<Record<string, { name: string; type: string }>> = {
  "": { name: "index.html", type: "text/html; charset=utf-8" },
  "start.js": { name: "start.js", type: "text/javascript; charset=utf-8" },
  "page.js": { name: "page.js", type: "text/javascript; charset=utf-8" },
  "page.css": { name: "page.css", type: "text/css; charset=utf-8" },
};
const FOLDER = "dist/dashboard";

/** The maximum number of pages that follow events at the same time. */
const MOST_VIEWERS = 16;
/** The maximum number of runs that a page follows. */
const MOST_RUNS = 16;
/** The maximum number of connections. */
const MOST_CONNECTIONS = 128;
/** The maximum milliseconds to wait at the end of a run until the pages have received its last events. */
const LAST_WORDS_MS = 1000;

export interface ListenOptions {
  /** The port to listen at; 0 for a free one. */
  port: number;
  /** Whether the server keeps the process alive. */
  holds: boolean;
}

/** A dashboard that is served until it is closed or the process ends. */
export class Dashboard {
  readonly #source: RunSource;
  readonly #server: Server;
  readonly #token = drawToken();
  readonly #files = new Map<string, Buffer>();
  readonly #streams = new Set<EventStream>();

  private constructor(source: RunSource) {
    this.#source = source;
    for (const [path, { name }] of Object.entries(FILES)) this.#files.set(path, readAsset(name));
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch(() => response.destroy());
    });
    this.#server.maxConnections = MOST_CONNECTIONS;
  }

  /** Throws `ERR_OPTION` if the port is not available. */
  static async open(source: RunSource, { port, holds }: ListenOptions): Promise<Dashboard> {
    const dashboard = new Dashboard(source);
    const server = dashboard.#server;
    await new Promise<void>((resolve, reject) => {
      server.once("error", (cause) => {
        const what = `dashboard: port ${port} is not available (${readSystemCode(cause)})`;
        reject(
          new LowrankError("ERR_OPTION", `${what}; give another port, or none for a free one`, { cause }),
        );
      });
      server.listen(port, LOOPBACK, resolve);
    });
    server.on("error", () => {});
    if (!holds) {
      server.unref();
      server.on("connection", (socket) => socket.unref());
    }
    return dashboard;
  }

  get #port(): number {
    return (this.#server.address() as AddressInfo | null)?.port ?? 0;
  }

  /** The page's address. Anyone who has it can watch the runs, and pause or stop a run of this process. */
  get url(): string {
    return `http://${LOOPBACK}:${this.#port}/${this.#token}/`;
  }

  /** Resolves when all pages have received all events, or after a second. */
  async waitForPages(): Promise<void> {
    const late = new Promise<void>((resolve) => setTimeout(resolve, LAST_WORDS_MS).unref());
    await Promise.race([late, Promise.all([...this.#streams].map((stream) => stream.waitForPages()))]);
  }

  async close(): Promise<void> {
    for (const stream of this.#streams) stream.close();
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
    // Request bodies are ignored.
    request.resume();
    const access = checkAccess(request, this.#token, this.#port);
    if ("refused" in access) return respond(response, 403, access.refused);
    const { path, query } = access;
    if (path === "stop" || path === "pause" || path === "resume")
      return this.#handleControl(path, request, response);
    if (request.method !== "GET") {
      response.setHeader("Allow", "GET");
      return respond(response, 405, "only GET");
    }
    const [file, kind] = [this.#files.get(path), FILES[path]];
    if (file !== undefined && kind !== undefined) {
      response.writeHead(200, { "Content-Type": kind.type }).end(file);
      return;
    }
    if (path === "runs") return this.#list(response);
    if (path === "events") return this.#stream(request, response, query);
    respond(response, 404, "not found");
  }

  async #list(response: ServerResponse): Promise<void> {
    const { title, stop, pause } = this.#source;
    const { runs, notices } = await this.#source
      .list()
      .catch((error: Error) => ({ runs: [], notices: [error.message] }));
    const text = JSON.stringify({
      title,
      stops: stop !== undefined,
      pauses: pause !== undefined,
      runs,
      notices,
    });
    response.writeHead(200, { "Content-Type": "application/json; charset=utf-8" }).end(text);
  }

  #handleControl(
    what: "stop" | "pause" | "resume",
    request: IncomingMessage,
    response: ServerResponse,
  ): void {
    const act = this.#source[what];
    if (request.method !== "POST") {
      response.setHeader("Allow", "POST");
      return respond(response, 405, "only POST");
    }
    if (act === undefined) return respond(response, 409, `cannot ${what}: another process trains these runs`);
    act();
    response.writeHead(204).end();
  }

  async #stream(request: IncomingMessage, response: ServerResponse, query: URLSearchParams): Promise<void> {
    const names = query.getAll("run");
    if (names.length === 0 || names.length > MOST_RUNS)
      return respond(response, 400, `name 1 to ${MOST_RUNS} runs`);
    if (this.#streams.size >= MOST_VIEWERS)
      return respond(response, 503, `${MOST_VIEWERS} pages are open already; close one`);
    response.writeHead(200, { "Content-Type": "text/event-stream; charset=utf-8" });
    const from = request.headers["last-event-id"] ?? query.get("from") ?? "";
    const followed = names.map((name) => ({ name, file: () => this.#source.file(name) }));
    const stream = new EventStream(response, followed, String(from));
    this.#streams.add(stream);
    try {
      await stream.send();
    } finally {
      this.#streams.delete(stream);
    }
  }
}

function respond(response: ServerResponse, status: number, what: string): void {
  response.writeHead(status, { "Content-Type": "text/plain; charset=utf-8" }).end(`${what}\n`);
}

/** Throws `ERR_FILE_NOT_FOUND`. */
function readAsset(name: string): Buffer {
  const path = resolveInPackage(`${FOLDER}/${name}`);
  try {
    return readFileSync(path);
  } catch (cause) {
    const what = `${path}: the file of the page is missing; reinstall the package, or build it with npm run build`;
    throw new LowrankError("ERR_FILE_NOT_FOUND", what, { cause });
  }
}
