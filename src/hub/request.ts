/** Requests to a hub: authorization, timeouts and retries. */
import { setTimeout as later } from "node:timers/promises";

import { readAbortReason, throwIfAborted } from "../errors.js";
import { describeConnectionFailure, Passing, convertFailure } from "./failures.js";
import type { HubSettings } from "./settings.js";

/** The maximum number of consecutive failed attempts. */
const TRIES = 5;
/** The maximum seconds that a server may request to wait; a longer wait is an error. */
const LONGEST_WAIT = 300;

/** The model of a request. */
export interface RequestedModel {
  repo: string;
  revision: string | undefined;
}

/** A response with a body that fails when it stalls. */
export interface Answer {
  response: Response;
  /** Must be called with each piece of the body, to restart the timeout. */
  alive: () => void;
  /** Must be called at the end of the body. */
  done: () => void;
}

/**
 * Sends one request and returns a successful response. The token is sent only to the hub, not to servers that it redirects
 * to. Throws `Passing`, the error of `refusal` for another response, or the signal's reason.
 */
export async function ask(
  settings: HubSettings,
  { repo, revision }: RequestedModel,
  url: string,
  given: Readonly<Record<string, string>> = {},
): Promise<Answer> {
  const { endpoint, token, timeout, signal } = settings;
  throwIfAborted(signal);
  const stalled = new AbortController();
  const timer = setTimeout(() => stalled.abort(), timeout);
  const done = (): void => clearTimeout(timer);
  const isHub = new URL(url).origin === new URL(endpoint).origin;
  const headers = { ...given, ...(isHub && token !== undefined && { authorization: `Bearer ${token}` }) };
  try {
    const combined = signal === undefined ? stalled.signal : AbortSignal.any([signal, stalled.signal]);
    const response = await fetch(url, { headers, signal: combined });
    if (!response.ok) {
      await response.body?.cancel();
      throw convertFailure(settings, repo, revision, response);
    }
    return { response, alive: () => void timer.refresh(), done };
  } catch (error) {
    done();
    throw convertRequestError(settings, { stalled: stalled.signal.aborted, answered: false }, error);
  }
}

/** Converts an error while reading a body: to the signal's reason, or to a temporary failure. */
export function convertBodyError(settings: HubSettings, error: unknown): unknown {
  // An abort that is not the signal's is the timeout's.
  return convertRequestError(
    settings,
    { stalled: (error as Error).name === "AbortError", answered: true },
    error,
  );
}

function convertRequestError(
  { signal, endpoint, timeout }: HubSettings,
  { stalled, answered }: { stalled: boolean; answered: boolean },
  error: unknown,
): unknown {
  if (signal?.aborted) return readAbortReason(signal);
  if (stalled) return new Passing(`${endpoint} has not answered for ${timeout / 1000} s`);
  // fetch throws a TypeError, with the reason among its causes.
  return error instanceof TypeError ? describeConnectionFailure(error, endpoint, answered) : error;
}

/**
 * Repeats `attempt` after temporary failures, up to five consecutive times; an increase of `progress` restarts the count.
 * Waits as long as the server requests, by default half a second, doubled each time. Without `begun` a server that cannot
 * be reached is not retried.
 */
export async function retryPersistently<T>(
  { signal }: HubSettings,
  attempt: () => Promise<T>,
  { progress = () => 0, begun = false }: { progress?: () => number; begun?: boolean } = {},
): Promise<T> {
  for (let tries = 1; ; tries++) {
    const before = progress();
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Passing)) throw error;
      if (progress() > before) tries = 1;
      const wait = error.after ?? 2 ** (tries - 2);
      if (tries >= TRIES || wait > LONGEST_WAIT || (error.unreachable && !begun)) throw error;
      await pause(wait, signal);
    }
  }
}

/** Waits for some seconds. Throws the signal's reason. */
export async function pause(seconds: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await later(1000 * seconds, undefined, signal === undefined ? {} : { signal });
  } catch (error) {
    throw signal?.aborted ? readAbortReason(signal) : error;
  }
}
