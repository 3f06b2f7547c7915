/** Who may ask the dashboard's server: whoever knows the token, on this machine, from the page itself. */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";

/** The one address that is listened at. */
export const ADDRESS = "127.0.0.1";

/** 256 random bits, as an address takes them. */
export function newToken(): string {
  return randomBytes(32).toString("base64url");
}

function same(a: string, b: string): boolean {
  const [left, right] = [a, b].map((text) => createHash("sha256").update(text).digest());
  return timingSafeEqual(left as Buffer, right as Buffer);
}

/** What is asked for, below the token; or why it is refused. */
export type Access = { path: string; query: URLSearchParams } | { refused: string };

/**
 * Looks at a request's `Host`, which another name for this machine would have (DNS rebinding); at where it comes from,
 * as browsers say it; and at the token, the first part of the path.
 */
export function accessOf({ url = "", headers }: IncomingMessage, token: string, port: number): Access {
  const own = `${ADDRESS}:${port}`;
  if (headers.host !== own) return { refused: `the host is ${own}, and no other` };
  if (headers.origin !== undefined && headers.origin !== `http://${own}`)
    return { refused: "another origin may not ask" };
  const site = headers["sec-fetch-site"];
  if (site !== undefined && site !== "same-origin" && site !== "none")
    return { refused: "another site may not ask" };
  const [, given = "", path] = /^\/([^/?#]*)\/([^?#]*)/.exec(url) ?? [];
  if (path === undefined || !same(given, token))
    return { refused: "the address has no token, or a wrong one; take the one that was printed" };
  const mark = url.indexOf("?");
  return { path, query: new URLSearchParams(mark === -1 ? "" : url.slice(mark)) };
}

/** What every answer says to browsers: load nothing from elsewhere, show it nowhere else, keep nothing. */
export const HEADERS: Readonly<Record<string, string>> = {
  "Content-Security-Policy": [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
  ].join("; "),
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
  "Cache-Control": "no-store",
};
