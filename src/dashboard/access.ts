/** Who may ask the dashboard's server: whoever knows the token, on this machine, from the page itself. */
import type { IncomingMessage } from "node:http";

import { LOOPBACK, sameSecret, senderRefusal } from "../local-access.js";

/** What is asked for, below the token; or why it is refused. */
export type Access = { path: string; query: URLSearchParams } | { refused: string };

/**
 * Looks at a request's `Host`, which another name for this machine would have (DNS rebinding); at where it comes from,
 * as browsers say it; and at the token, the first part of the path.
 */
export function accessOf({ url = "", headers }: IncomingMessage, token: string, port: number): Access {
  const own = `${LOOPBACK}:${port}`;
  const refused = senderRefusal(headers, { hosts: [own], origins: [`http://${own}`] });
  if (refused !== undefined) return { refused };
  const [, given = "", path] = /^\/([^/?#]*)\/([^?#]*)/.exec(url) ?? [];
  if (path === undefined || !sameSecret(given, token))
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
