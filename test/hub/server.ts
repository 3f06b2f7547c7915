/**
 * A local hub: the API that lists a repository's content, a server for the files stored in git, and another server
 * for large files, to which the hub redirects.
 */
import { createHash } from "node:crypto";
import { readdirSync, statSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout as later } from "node:timers/promises";

export const sha256 = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");
export const gitHash = (bytes: Buffer): string =>
  createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");

/** A repository at one commit. */
export interface Repo {
  files: Record<string, Buffer>;
  commit: string;
  /** Branches and tags of this commit; `main` by default. */
  revisions?: readonly string[];
  /** Whether only clients with the token can see it. */
  private?: boolean;
  /** Whether access has to be requested. */
  gated?: boolean;
}

/** A request to one of the two servers. */
export interface Request {
  /** The server: the hub, or the one for large files. */
  at: "hub" | "cdn";
  method: string;
  url: string;
  range: string | undefined;
  ifRange: string | undefined;
  authorization: string | undefined;
  /** Milliseconds, by the clock of `performance`. */
  when: number;
}

/** Injects a fault into a request; returns whether the request has been answered. */
export type Fault = (request: Request, response: ServerResponse) => boolean | Promise<boolean>;

export const TOKEN = "hf_secretOfTheTest";
/** Size in bytes from which a file is not stored in git. */
const LARGE = 10_000;

export class Hub {
  readonly requests: Request[] = [];
  /** Bytes of large files that were sent, by the file's hash. */
  readonly sent = new Map<string, number>();
  /** Tried in turn for each request; a fault that answers a request is removed. */
  faults: Fault[] = [];
  readonly #servers: Server[] = [];
  url = "";
  /** The client's cache folder. */
  home = "";
  /** The address of the server for large files. */
  cdn = "";

  constructor(readonly repos: Record<string, Repo[]>) {}

  async listen(): Promise<this> {
    this.url = await this.#start("hub", (request, response) => this.#answer(request, response));
    this.cdn = await this.#start("cdn", (request, response) => this.#large(request, response));
    return this;
  }

  close(): void {
    for (const server of this.#servers) {
      server.close();
      server.closeAllConnections();
    }
  }

  /** Returns the number of bytes of a file that were sent. */
  sentOf(file: Buffer): number {
    return this.sent.get(sha256(file)) ?? 0;
  }

  /** Returns the requests to a server whose address contains a text. */
  asked(part: string, at?: Request["at"]): Request[] {
    return this.requests.filter((one) => one.url.includes(part) && (at ?? one.at) === one.at);
  }

  async #start(
    at: Request["at"],
    answer: (request: Request, response: ServerResponse) => void | Promise<void>,
  ): Promise<string> {
    const handle = async (incoming: IncomingMessage, response: ServerResponse): Promise<void> => {
      const { headers, method = "", url = "" } = incoming;
      const { range, authorization } = headers;
      const request = {
        at,
        method,
        url,
        range,
        ifRange: headers["if-range"] as string | undefined,
        authorization,
        when: performance.now(),
      };
      this.requests.push(request);
      for (const fault of this.faults) {
        if (!(await fault(request, response))) continue;
        this.faults = this.faults.filter((one) => one !== fault);
        return;
      }
      await answer(request, response);
    };
    const server = createServer((incoming, response) => void handle(incoming, response));
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    this.#servers.push(server);
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  #answer(request: Request, response: ServerResponse): void {
    const { pathname, searchParams } = new URL(request.url, this.url);
    const path = decodeURIComponent(pathname);
    const [, api, name = "", kind = "", rest = ""] =
      /^(\/api\/models)?\/([^/]+\/[^/]+)\/(revision|tree|resolve)\/(.+)$/.exec(path) ?? [];
    const versions = this.repos[name];
    const known = request.authorization === `Bearer ${TOKEN}`;
    if (request.authorization !== undefined && !known) return refuse(response, 401, undefined);
    if (versions === undefined || (versions[0]?.private && !known))
      return refuse(response, known ? 404 : 401, "RepoNotFound");
    if (versions[0]?.gated) return refuse(response, known ? 403 : 401, "GatedRepo");
    const [revision = "", ...file] = kind === "resolve" ? rest.split("/") : [rest];
    const repo = versions.find(
      ({ commit, revisions = ["main"] }) =>
        commit === revision || revisions.includes(revision === "HEAD" ? "main" : revision),
    );
    if (repo === undefined) return refuse(response, 404, "RevisionNotFound");
    if (api === undefined) return this.#file(repo, file.join("/"), request, response);
    const headers = { "content-type": "application/json" };
    if (kind === "revision") {
      const info = { _id: "1", id: name, sha: repo.commit, lastModified: "2026-01-01T00:00:00.000Z" };
      return void response.writeHead(200, headers).end(JSON.stringify(info));
    }
    // Four entries a page, and a link to the next page.
    const from = Number(searchParams.get("cursor") ?? 0);
    const entries = Object.entries(repo.files).map(([name, bytes]) => ({
      type: "file",
      path: name,
      size: bytes.length,
      oid: bytes.length < LARGE ? gitHash(bytes) : gitHash(Buffer.from("a pointer")),
      ...(bytes.length >= LARGE && { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 134 } }),
    }));
    entries.splice(1, 0, { type: "directory", path: "onnx", size: 0, oid: "0".repeat(40) });
    const next = `<${this.url}${pathname}?cursor=${from + 4}>; rel="next"`;
    response.writeHead(200, { ...headers, ...(from + 4 < entries.length && { link: next }) });
    response.end(JSON.stringify(entries.slice(from, from + 4)));
  }

  #file(repo: Repo, name: string, { method }: Request, response: ServerResponse): void {
    const bytes = repo.files[name];
    if (bytes === undefined) return refuse(response, 404, "EntryNotFound");
    const headers = { "x-repo-commit": repo.commit };
    if (bytes.length < LARGE) {
      const own = { ...headers, etag: `"${gitHash(bytes)}"`, "content-length": bytes.length };
      return void response.writeHead(200, own).end(method === "HEAD" ? undefined : bytes);
    }
    const linked = { "x-linked-etag": `"${sha256(bytes)}"`, "x-linked-size": bytes.length };
    response.writeHead(302, { ...headers, ...linked, location: `${this.cdn}/${sha256(bytes)}` }).end();
  }

  /** Sends a large file, or a part of it. */
  async #large({ url, range, ifRange, authorization }: Request, response: ServerResponse): Promise<void> {
    const bytes = this.bytesOf(url);
    // A redirected request must not reveal the token.
    if (bytes === undefined || authorization !== undefined) return refuse(response, 400, undefined);
    const etag = etagOf(bytes);
    const from =
      range === undefined || (ifRange ?? etag) !== etag ? 0 : Number(/^bytes=(\d+)-$/.exec(range)?.[1]);
    const part = bytes.subarray(from);
    const headers = { etag, "content-length": part.length, "accept-ranges": "bytes" };
    if (from === 0) response.writeHead(200, headers);
    else {
      const which = `bytes ${from}-${bytes.length - 1}/${bytes.length}`;
      response.writeHead(206, { ...headers, "content-range": which });
    }
    await this.send(response, part, url);
    response.end();
  }

  /** Returns the file for an address of the server for large files. */
  bytesOf(url: string): Buffer | undefined {
    const all = Object.values(this.repos).flatMap((versions) =>
      versions.flatMap(({ files }) => Object.values(files)),
    );
    return all.find((bytes) => sha256(bytes) === url.slice(1));
  }

  /** Sends bytes, and counts them. */
  async send(response: ServerResponse, part: Buffer, url: string): Promise<void> {
    for (let at = 0; at < part.length && !response.destroyed; at += 4096) {
      const piece = part.subarray(at, at + 4096);
      await new Promise<void>((done) => response.write(piece, () => done()));
      this.sent.set(url.slice(1), (this.sent.get(url.slice(1)) ?? 0) + piece.length);
    }
  }
}

/** Returns the ETag of a large file, which on real servers is not its hash either. */
export const etagOf = (bytes: Buffer): string => `"of-${bytes.length}-bytes"`;

function refuse(response: ServerResponse, status: number, code: string | undefined): void {
  response.writeHead(status, { ...(code !== undefined && { "x-error-code": code }) }).end("no");
}

/** Returns faults that answer requests whose address contains `part` with a status, `times` times. */
export function answers(
  part: string,
  status: number,
  times = 1,
  headers: Record<string, string> = {},
): Fault[] {
  return Array.from({ length: times }, () => (request: Request, response: ServerResponse) => {
    if (!request.url.includes(part)) return false;
    response.writeHead(status, headers).end("no");
    return true;
  });
}

/** Returns a fault that cuts the connection after `count` bytes of a large file, or stops sending. */
export function after(hub: Hub, file: Buffer, count: number, then: "cut" | "hold"): Fault {
  return async ({ at, url, range }, response) => {
    if (at !== "cdn" || url.slice(1) !== sha256(file)) return false;
    const from = range === undefined ? 0 : Number(/^bytes=(\d+)-$/.exec(range)?.[1]);
    const headers = { etag: etagOf(file), "content-length": file.length - from };
    const which = { "content-range": `bytes ${from}-${file.length - 1}/${file.length}` };
    response.writeHead(from === 0 ? 200 : 206, { ...headers, ...(from > 0 && which) });
    await hub.send(response, file.subarray(from, from + count), url);
    // Bytes in transit are lost when a connection is cut.
    if (then === "cut") void kept(hub.home, from + count, response).then(() => response.destroy());
    return true;
  };
}

/** Waits until `bytes` bytes of a file are stored below `home`, or the connection is closed. */
async function kept(home: string, bytes: number, response: ServerResponse): Promise<void> {
  const sizes = (): number[] =>
    readdirSync(home, { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".incomplete"))
      .map((name) => statSync(join(home, name), { throwIfNoEntry: false })?.size ?? 0);
  while (!response.closed && Math.max(0, ...sizes()) < bytes) await later(5);
}
