/** Access control of the dashboard's server: requests need the token, and must come from the page on this machine. */
import type { IncomingMessage } from "node:http";

import { LOOPBACK, compareSecrets, refuseSender } from "../http/local-access.js";

/** The requested path below the token, or the reason for refusing it. */
export type Access = { path: string; query: URLSearchParams } | { refused: string };

/**
 * Checks a request's `Host`, against DNS rebinding; the origin that browsers send; and the token, which is the first
 * segment of the path.
 */
export function checkAccess({ url = "", headers }: IncomingMessage, token: string, port: number): Access {
  const address = `${LOOPBACK}:${port}`;
  const refused = refuseSender(headers, { hosts: [address], origins: [`http://${address}`] });
  if (refused !== undefined) return { refused };
  const [, given = "", path] = /^\/([^/?#]*)\/([^?#]*)/.exec(url) ?? [];
  if (path === undefined || !compareSecrets(given, token))
    return { refused: "the address has no token or a wrong one; open the address that was printed" };
  const mark = url.indexOf("?");
  return { path, query: new URLSearchParams(mark === -1 ? "" : url.slice(mark)) };
}

/** The headers of every response: browsers load nothing from elsewhere, do not embed the page, and do not cache it. */
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
