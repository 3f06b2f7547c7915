/** An HTTP server with OpenAI's API for chat and completions, for one model and its adapters. */
import { randomBytes } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { type AddressInfo, isIP } from "node:net";

import { LowrankError, readSystemCode } from "../errors.js";
import { type Senders, compareSecrets, refuseSender } from "../http/local-access.js";
import { ApiError, toApiError } from "./api-error.js";
import { Batcher, type Job } from "./batcher.js";
import { readBody } from "./body.js";
import { EventStream } from "./event-stream.js";
import { type Entry, logLine } from "./log.js";
import {
  parseChatRequest,
  parseCompletionRequest,
  type GenerationRequest,
  type Service,
} from "./requests.js";
import { Answer } from "./responses.js";
import { findServed } from "./served.js";

/** The maximum number of connections. */
const MOST_CONNECTIONS = 512;
/** Default timeouts for a request's headers, and for the whole request, in milliseconds. */
const HEADERS_MS = 10_000;
const REQUEST_MS = 60_000;
/** The timeout for a client to receive the end of a response, in milliseconds. */
const TAKEN_MS = 60_000;
/** How long the rest of a rejected body is read and discarded, in milliseconds. */
const UNREAD_MS = 2_000;
const CHAT = "/v1/chat/completions";
const COMPLETIONS = "/v1/completions";
const MODELS = "/v1/models";
const HEALTH = "/health";

export interface ServerOptions extends Omit<Service, "templates"> {
  host: string;
  /** 0 for any free port. */
  port: number;
  token: string;
  /** Allowed origins of web pages. */
  origins: readonly string[];
  /** The maximum bytes of a request's body. */
  maxBody: number;
  /** The maximum number of concurrent texts, and of waiting requests. */
  maxConcurrent: number;
  maxQueue: number;
  /** Timeouts for a request's headers, and for the whole request, in milliseconds. */
  headersMs?: number | undefined;
  requestMs?: number | undefined;
  /** Receives a line per request. */
  log: (line: string) => void;
  /** Called when the device has stopped responding. */
  onLost: (error: LowrankError) => void;
}

export class ModelServer {
  readonly #options: ServerOptions;
  readonly #server: Server;
  readonly #batcher: Batcher;
  readonly #service: Service;
  readonly #started = Math.floor(Date.now() / 1000);
  /** Parameters without effect that the log has listed. */
  readonly #listed = new Set<string>();
  #stopping = false;
  /** Stored, because a closing server no longer has an address. */
  #port = 0;

  private constructor(options: ServerOptions) {
    this.#options = options;
    this.#service = { ...options, templates: new Map() };
    this.#batcher = new Batcher(options.model, options);
    const limits = {
      headersTimeout: options.headersMs ?? HEADERS_MS,
      requestTimeout: options.requestMs ?? REQUEST_MS,
      connectionsCheckingInterval: 1000,
      requireHostHeader: true,
    };
    this.#server = createServer(limits, (request, response) => void this.#handle(request, response));
    this.#server.maxConnections = MOST_CONNECTIONS;
  }

  /** Starts a server. Throws `ERR_OPTION` if it cannot listen on the address. */
  static async listen(options: ServerOptions): Promise<ModelServer> {
    const opened = new ModelServer(options);
    const { host, port } = options;
    try {
      await new Promise<void>((resolve, reject) => {
        opened.#server.once("error", reject);
        opened.#server.listen(port, host, resolve);
      });
    } catch (cause) {
      await opened.#batcher.close();
      const code = readSystemCode(cause) ?? (cause as Error).message;
      throw new LowrankError("ERR_OPTION", `cannot listen on ${host}:${port} (${code}); choose another`, {
        cause,
      });
    }
    opened.#port = (opened.#server.address() as AddressInfo).port;
    opened.#server.on("error", () => {});
    return opened;
  }

  /** The base URL for clients. */
  get url(): string {
    const { host } = this.#options;
    return `http://${isIP(host) === 6 ? `[${host}]` : host}:${this.#port}/v1`;
  }

  /** The number of waiting requests and running texts. */
  get load(): { waiting: number; running: number } {
    return this.#batcher.load;
  }

  /** Whether other machines can connect. */
  get open(): boolean {
    return !isLoopback(this.#options.host);
  }

  /**
   * Rejects new requests, lets running ones finish within `grace` milliseconds, cancels the others, and closes all
   * connections.
   */
  async close(grace: number): Promise<void> {
    this.#stopping = true;
    const closed = new Promise((resolve) => this.#server.close(resolve));
    const cancel = (): void =>
      this.#batcher.abort(new ApiError(503, "the server is stopping", { code: "server_stopping" }));
    const late = setTimeout(cancel, grace);
    await this.#batcher.close();
    clearTimeout(late);
    // The system receives written data in a later turn of the event loop.
    await new Promise((resolve) => setTimeout(resolve, 50));
    this.#server.closeAllConnections();
    await closed;
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const entry: Entry = {
      id: `req_${randomBytes(16).toString("hex")}`,
      method: request.method ?? "",
      path: readPath(request),
      started: performance.now(),
    };
    response.on("close", () => this.#options.log(logLine(entry, response)));
    response.on("error", () => {});
    response.setHeader("X-Content-Type-Options", "nosniff");
    response.setHeader("Cache-Control", "no-store");
    response.setHeader("X-Request-Id", entry.id);
    try {
      await this.#answer(request, response, entry);
    } catch (error) {
      this.#refuse(request, response, error, entry);
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse, entry: Entry): Promise<void> {
    const { path } = entry;
    if (this.#answersPreflight(request, response)) return;
    if (path === HEALTH) return this.#sendHealth(request, response);
    this.#checkToken(request);
    if (path === MODELS) return this.#sendModels(request, response);
    if (path.startsWith(`${MODELS}/`))
      return this.#sendModels(request, response, path.slice(MODELS.length + 1));
    if (path !== CHAT && path !== COMPLETIONS) throw new ApiError(404, "there is nothing at this path");
    allow(request, "POST");
    if (this.#stopping) throw new ApiError(503, "the server is stopping", { code: "server_stopping" });
    const body = await readBody(request, this.#options.maxBody);
    const read = path === CHAT ? parseChatRequest : parseCompletionRequest;
    await this.#generate(await read(body, this.#service), path === CHAT, response, entry);
  }

  /** Checks the request's host and origin; answers CORS preflight requests of allowed origins. */
  #answersPreflight(request: IncomingMessage, response: ServerResponse): boolean {
    const { origins } = this.#options;
    const refused = refuseSender(request.headers, this.#listSenders());
    if (refused !== undefined) throw new ApiError(403, refused, { code: "forbidden" });
    const { origin } = request.headers;
    if (origin !== undefined && origins.includes(origin)) {
      response.setHeader("Access-Control-Allow-Origin", origin);
      response.setHeader("Access-Control-Expose-Headers", "x-request-id");
      response.setHeader("Vary", "Origin");
      if (request.method === "OPTIONS") {
        const headers = request.headers["access-control-request-headers"];
        response.setHeader("Access-Control-Allow-Methods", "GET, HEAD, POST");
        if (headers !== undefined) response.setHeader("Access-Control-Allow-Headers", headers);
        response.writeHead(204).end();
        return true;
      }
    }
    return false;
  }

  #checkToken(request: IncomingMessage): void {
    const [, given = ""] = /^Bearer +(\S+) *$/i.exec(request.headers.authorization ?? "") ?? [];
    if (compareSecrets(given, this.#options.token)) return;
    const what = given === "" ? "the Authorization header has no bearer token" : "the bearer token is wrong";
    throw new ApiError(401, what, { code: "invalid_api_key" }, { "WWW-Authenticate": "Bearer" });
  }

  #listSenders(): Senders {
    const { host, origins } = this.#options;
    // A server for other machines has host names that it cannot know.
    const names = isLoopback(host) ? [host, "localhost", "127.0.0.1", "[::1]"] : undefined;
    const hosts = names?.map((name) => `${isIP(name) === 6 ? `[${name}]` : name}:${this.#port}`);
    return { hosts: hosts && [...new Set(hosts)], origins };
  }

  /** Tells a load balancer whether the server takes requests. Needs no token. */
  #sendHealth(request: IncomingMessage, response: ServerResponse): void {
    allow(request, "GET");
    sendJson(response, this.#stopping ? 503 : 200, { status: this.#stopping ? "stopping" : "ok" });
  }

  #sendModels(request: IncomingMessage, response: ServerResponse, encoded?: string): void {
    allow(request, "GET");
    const data = this.#options.served.map(({ name }) => ({
      id: name,
      object: "model",
      created: this.#started,
      owned_by: "lowrank",
    }));
    if (encoded === undefined) return sendJson(response, 200, { object: "list", data });
    const { name } = findServed(decodeName(encoded), this.#options.served);
    sendJson(response, 200, data.find(({ id }) => id === name) as object);
  }

  async #generate(
    request: GenerationRequest,
    chat: boolean,
    response: ServerResponse,
    entry: Entry,
  ): Promise<void> {
    entry.model = request.served.name;
    this.#listIgnored(request.ignored);
    // The client disconnected while its body was read.
    if (response.destroyed) return;
    const job: Job = this.#batcher.submit(request.generation);
    response.on("close", () => this.#batcher.cancel(job));
    const answer = new Answer(request, chat);
    entry.usage = () => answer.usage;
    entry.finish = () => [...new Set(answer.texts.map(({ finish }) => finish ?? "cancelled"))].join("+");
    const stream = request.stream ? new EventStream(response) : undefined;
    for await (const event of job) for (const chunk of answer.add(event)) stream?.send(chunk);
    if (stream === undefined) sendJson(response, 200, answer.createResponse());
    else {
      const usage = answer.createUsageChunk();
      if (usage !== undefined) stream.send(usage);
      stream.end();
    }
    cutOff(response);
  }

  /** Lists parameters that change nothing here in the log, each once. */
  #listIgnored(names: readonly string[]): void {
    const added = names.filter((name) => !this.#listed.has(name));
    if (added.length === 0) return;
    for (const name of added) this.#listed.add(name);
    this.#options.log(`requests have parameters that change nothing here: ${added.join(", ")}`);
  }

  #refuse(request: IncomingMessage, response: ServerResponse, error: unknown, entry: Entry): void {
    if (response.destroyed) return;
    const answer = toApiError(error);
    entry.error = answer;
    if (!(error instanceof ApiError) && answer.status >= 500) entry.fault = error;
    if (response.headersSent) {
      new EventStream(response).fail(answer.toBody());
    } else {
      for (const [name, value] of Object.entries(answer.headers)) response.setHeader(name, value);
      if (request.complete) sendJson(response, answer.status, answer.toBody());
      else sendUnread(request, response, answer);
    }
    cutOff(response);
  }
}

/** Returns the path of a request, without its query. */
function readPath({ url = "" }: IncomingMessage): string {
  return url.split("?", 1)[0] as string;
}

/** Decodes the name of a model in a path; a name that is not percent-encoded stays as it is. */
function decodeName(encoded: string): string {
  try {
    return decodeURIComponent(encoded);
  } catch {
    return encoded;
  }
}

/** Throws an `ApiError`, status 405, for another method. Node.js sends no body to a `HEAD` request. */
function allow(request: IncomingMessage, method: "GET" | "POST"): void {
  if (request.method === method || (method === "GET" && request.method === "HEAD")) return;
  const allowed = method === "GET" ? "GET, HEAD" : method;
  throw new ApiError(405, `only ${allowed} is possible here`, {}, { Allow: allowed });
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}

function sendJson(response: ServerResponse, status: number, value: object): void {
  writeJson(response, status, value);
  response.end();
}

/** Writes a whole JSON response with its length, and does not end it. */
function writeJson(response: ServerResponse, status: number, value: object): void {
  const text = JSON.stringify(value);
  const type = "application/json; charset=utf-8";
  response.writeHead(status, { "Content-Type": type, "Content-Length": Buffer.byteLength(text) }).write(text);
}

/**
 * Refuses a request before its body was read to the end. Closing the connection while the client still sends would lose
 * the response, so the server reads and drops the rest of the body, for `UNREAD_MS` at most. Node.js closes the
 * connection when the response ends; the client knows from Content-Length that it is complete.
 */
function sendUnread(request: IncomingMessage, response: ServerResponse, answer: ApiError): void {
  response.setHeader("Connection", "close");
  writeJson(response, answer.status, answer.toBody());
  const end = (): void => void response.end();
  request.once("end", end).resume();
  setTimeout(end, UNREAD_MS).unref();
}

/** Closes the connection of a client that does not receive the end of its response in time. */
function cutOff(response: ServerResponse): void {
  const late = setTimeout(() => response.destroy(), TAKEN_MS).unref();
  response.on("close", () => clearTimeout(late));
}
