/** Access control for local servers: the token, and checks against requests from other websites. */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";

/** The loopback address that servers listen on by default. */
export const LOOPBACK = "127.0.0.1";

/** Draws 256 random bits, as base64url. */
export function drawToken(): string {
  return randomBytes(32).toString("base64url");
}

/** Compares two secrets in constant time. */
export function compareSecrets(a: string, b: string): boolean {
  const [left, right] = [a, b].map((text) => createHash("sha256").update(text).digest());
  return timingSafeEqual(left as Buffer, right as Buffer);
}

/** The accepted senders of requests. */
export interface Senders {
  /** Accepted values of `Host`; undefined accepts any. Other host names could be a DNS rebinding attack. */
  hosts: readonly string[] | undefined;
  /** Accepted values of `Origin`. */
  origins: readonly string[];
}

/** Returns why a request is refused by its headers; undefined if it is accepted. */
export function refuseSender(headers: IncomingHttpHeaders, { hosts, origins }: Senders): string | undefined {
  const { host, origin } = headers;
  if (hosts !== undefined && !hosts.includes(host ?? ""))
    return `the Host header must be ${hosts.join(" or ")}`;
  if (origin !== undefined) return origins.includes(origin) ? undefined : "another origin may not ask";
  const site = headers["sec-fetch-site"];
  const isSameOrigin = site === undefined || site === "same-origin" || site === "none";
  return isSameOrigin ? undefined : "another site may not ask";
}
