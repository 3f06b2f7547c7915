/** Access to a server on this machine: its token, and the requests that browsers must not send it. */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";

/** The loopback address that servers listen on by default. */
export const LOOPBACK = "127.0.0.1";

/** Draws 256 random bits, in base64url. */
export function newToken(): string {
  return randomBytes(32).toString("base64url");
}

/** Compares two secrets in a time that depends on neither. */
export function sameSecret(a: string, b: string): boolean {
  const [left, right] = [a, b].map((text) => createHash("sha256").update(text).digest());
  return timingSafeEqual(left as Buffer, right as Buffer);
}

/** The senders that a server accepts. */
export interface Senders {
  /** Values of `Host`; undefined accepts any. Another name for this machine would be DNS rebinding. */
  hosts: readonly string[] | undefined;
  /** Values of `Origin`. */
  origins: readonly string[];
}

/** Why a request is refused by its headers, as browsers send them; undefined if it is accepted. */
export function senderRefusal(headers: IncomingHttpHeaders, { hosts, origins }: Senders): string | undefined {
  const { host, origin } = headers;
  if (hosts !== undefined && !hosts.includes(host ?? ""))
    return `the Host header must be ${hosts.join(" or ")}`;
  if (origin !== undefined) return origins.includes(origin) ? undefined : "another origin may not ask";
  const site = headers["sec-fetch-site"];
  const own = site === undefined || site === "same-origin" || site === "none";
  return own ? undefined : "another site may not ask";
}
