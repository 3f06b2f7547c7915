/** Requests to a dashboard's server, and its event stream. */
import { request, type IncomingHttpHeaders } from "node:http";

import type { ExecutionContext } from "ava";

import { Dashboard } from "../../src/dashboard/server.js";
import type { RunSource } from "../../src/dashboard/sources.js";

export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
}

export function ask(
  url: string,
  { method = "GET", headers = {} }: { method?: string; headers?: Record<string, string> } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request(url, { method, headers }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => (text += part));
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text }),
      );
    });
    asked.on("error", reject).end();
  });
}

export async function served(
  t: ExecutionContext,
  source: RunSource,
  { port = 0 }: { port?: number } = {},
): Promise<Dashboard> {
  const dashboard = await Dashboard.open(source, { port, holds: true });
  t.teardown(() => dashboard.close());
  return dashboard;
}

export interface Message {
  id: string;
  run: string;
  begin: boolean;
  steps: number[];
}

/** Watches until `enough` returns true; returns the messages. */
export function watch(
  url: string,
  enough: (messages: readonly Message[]) => boolean,
  headers: Record<string, string> = {},
): Promise<Message[]> {
  return new Promise((resolve, reject) => {
    const messages: Message[] = [];
    const asked = request(url, { headers }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => {
        text += part;
        for (let end = text.indexOf("\n\n"); end !== -1; end = text.indexOf("\n\n")) {
          const message = messageIn(text.slice(0, end));
          text = text.slice(end + 2);
          if (message === undefined) continue;
          messages.push(message);
          if (enough(messages)) response.destroy();
        }
      });
      response.on("close", () => resolve(messages));
    });
    asked.on("error", reject).end();
  });
}

function messageIn(text: string): Message | undefined {
  const lines = text.split("\n");
  const id = lines.find((line) => line.startsWith("id: "))?.slice(4);
  if (id === undefined) return undefined;
  const [head = "", ...rest] = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
  const steps = rest.flatMap((line) => {
    // Instead of a line that is too long only its position is sent.
    const { type, step } = JSON.parse(line || "{}") as { type?: string; step: number };
    return type === "step" ? [step] : [];
  });
  return { id, ...(JSON.parse(head) as { run: string; begin: boolean }), steps };
}

export const upTo = (last: number, first = 1): number[] =>
  Array.from({ length: last - first + 1 }, (_, i) => first + i);
export const stepsOf = (messages: readonly Message[]): number[] => messages.flatMap(({ steps }) => steps);
