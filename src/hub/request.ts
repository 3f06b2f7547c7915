/** Asking a hub: who asks, how long an answer is waited for, and how often it is asked again. */
import { setTimeout as later } from "node:timers/promises";

import { abortReason, throwIfAborted } from "../errors.js";
import { connectionFailed, Passing, refusal } from "./failures.js";
import type { HubSettings } from "./settings.js";

/** How often in a row one thing is tried. */
const TRIES = 5;
/** Seconds that a server may ask to be waited for; one that asks for more is told of. */
const LONGEST_WAIT = 300;

/** A model that is asked about. */
export interface Asked {
  repo: string;
  revision: string | undefined;
}

/** An answer whose body ends with an error where it stalls. */
export interface Answer {
  response: Response;
  /** To be called with each piece of the body. */
  alive: () => void;
  /** To be called at the end. */
  done: () => void;
}

/**
 * One request; the answer is a success. The token goes to the hub alone, and not to where it sends one on. Throws
 * `Passing`, what `refusal` makes of another answer, and the signal's reason.
 */
export async function ask(
  settings: HubSettings,
  { repo, revision }: Asked,
  url: string,
  given: Readonly<Record<string, string>> = {},
): Promise<Answer> {
  const { endpoint, token, timeout, signal } = settings;
  throwIfAborted(signal);
  const stalled = new AbortController();
  const timer = setTimeout(() => stalled.abort(), timeout);
  const done = (): void => clearTimeout(timer);
  const own = new URL(url).origin === new URL(endpoint).origin;
  const headers = { ...given, ...(own && token !== undefined && { authorization: `Bearer ${token}` }) };
  try {
    const both = signal === undefined ? stalled.signal : AbortSignal.any([signal, stalled.signal]);
    const response = await fetch(url, { headers, signal: both });
    if (!response.ok) {
      await response.body?.cancel();
      throw refusal(settings, repo, revision, response);
    }
    return { response, alive: () => void timer.refresh(), done };
  } catch (error) {
    done();
    throw failed(settings, { stalled: stalled.signal.aborted, answered: false }, error);
  }
}

/** What an error of reading an answer is told as: the signal's reason, or what another try may not meet. */
export function interrupted(settings: HubSettings, error: unknown): unknown {
  // Of the two that abort it, where it is not the signal it is the clock.
  return failed(settings, { stalled: (error as Error).name === "AbortError", answered: true }, error);
}

function failed(
  { signal, endpoint, timeout }: HubSettings,
  { stalled, answered }: { stalled: boolean; answered: boolean },
  error: unknown,
): unknown {
  if (signal?.aborted) return abortReason(signal);
  if (stalled) return new Passing(`${endpoint} has not answered for ${timeout / 1000} s`);
  // What fetch fails by: a TypeError, whose causes say by what.
  return error instanceof TypeError ? connectionFailed(error, endpoint, answered) : error;
}

/**
 * Does `attempt` again as long as what it fails by may pass: five times in a row, or more often where `progress` has
 * grown meanwhile. Waits as the server asks, or half a second and twice as long each time. `begun` says whether the
 * server has been heard before: one that was never is not waited for.
 */
export async function persistently<T>(
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

/** Waits some seconds. Throws the signal's reason. */
export async function pause(seconds: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await later(1000 * seconds, undefined, signal === undefined ? {} : { signal });
  } catch (error) {
    throw signal?.aborted ? abortReason(signal) : error;
  }
}
