/** Reads a request's body: JSON of limited size and depth. */
import type { IncomingMessage } from "node:http";

import { ApiError } from "./api-error.js";
import { isObject } from "./parameters.js";

/** The maximum nesting of objects and arrays, because templates and checks are recursive. */
const DEEPEST = 64;

/**
 * Reads a JSON object. Throws an `ApiError`: 413 for more than `limit` bytes, 415 for another type, 400 for other JSON.
 */
export async function readBody(request: IncomingMessage, limit: number): Promise<Record<string, unknown>> {
  const { headers } = request;
  if (!/^application\/json\s*(;|$)/i.test(headers["content-type"] ?? ""))
    throw new ApiError(415, "the Content-Type header must be application/json");
  if ((headers["content-encoding"] ?? "identity") !== "identity")
    throw new ApiError(415, "a compressed body is not supported; send it plain");
  const tooLarge = (): ApiError => new ApiError(413, `the body is larger than ${limit} bytes`);
  if (Number(headers["content-length"] ?? 0) > limit) throw tooLarge();
  return parseBody(await readBytes(request, limit, tooLarge));
}

/**
 * Reads all bytes of a request. Uses events: ending an iteration early would close the connection before the response
 * is sent.
 */
function readBytes(request: IncomingMessage, limit: number, tooLarge: () => ApiError): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    let size = 0;
    const take = (part: Buffer): void => {
      size += part.length;
      parts.push(part);
      if (size <= limit) return;
      request.off("data", take);
      request.pause();
      parts.length = 0;
      reject(tooLarge());
    };
    request.on("data", take);
    request.once("end", () => resolve(Buffer.concat(parts)));
    request.once("error", () => reject(new ApiError(400, "the request ended before its body did")));
    request.once("close", () => reject(new ApiError(400, "the request ended before its body did")));
  });
}

function parseBody(bytes: Buffer): Record<string, unknown> {
  let value: unknown;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    if (measureDepth(text) > DEEPEST)
      throw new ApiError(400, `the body is nested deeper than ${DEEPEST} levels`);
    value = JSON.parse(text);
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw new ApiError(400, "the body is not valid JSON in UTF-8");
  }
  if (!isObject(value)) throw new ApiError(400, "the body must be a JSON object");
  return value;
}

/** Returns the nesting depth of brackets outside strings. */
function measureDepth(text: string): number {
  let [depth, deepest, quoted] = [0, 0, false];
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (quoted) {
      if (code === 0x5c) i++;
      else if (code === 0x22) quoted = false;
    } else if (code === 0x22) quoted = true;
    else if (code === 0x5b || code === 0x7b) deepest = Math.max(deepest, ++depth);
    else if (code === 0x5d || code === 0x7d) depth--;
  }
  return deepest;
}
