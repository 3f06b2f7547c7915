/** A server over the embedded model with two adapters, and its clients. */
import type { ExecutionContext } from "ava";
import OpenAI from "openai";

import { loadModel, lora, manualSeed, rand, type CausalLM } from "../../src/index.js";
import { ModelServer, type ServerOptions } from "../../src/serve/server.js";
import { tinyModel } from "../hashed.js";

export const TOKEN = "a-token-of-this-test";
export const BASE = "base";
export const ADAPTERS = ["ada", "ben"];
export const TEMPLATE =
  "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}" +
  "{% if add_generation_prompt %}assistant:{% endif %}";

export interface Serving {
  model: CausalLM;
  server: ModelServer;
  client: OpenAI;
  /** The server's log. */
  lines: string[];
  /** Sends a body unchanged; `path` is below /v1. */
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>;
}

/** Returns the tiny model of the tests with adapters that change its choices. */
export async function adaptedModel(device: "cpu" | "gpu" = "cpu"): Promise<CausalLM> {
  const model = await loadModel(tinyModel({ maxPositions: 256 }), { device, task: "causal-lm" });
  Object.assign(model.config, { eosTokenIds: [] });
  manualSeed(4);
  for (const name of ADAPTERS)
    await lora.inject(model, { r: 4, loraAlpha: 16, targetModules: "all-linear", name });
  for (const [path, parameter] of model.namedParameters())
    if (path.includes("lora_B")) parameter.copy(rand(parameter.shape, { device: model.device }));
  if (model.tokenizer) model.tokenizer.chatTemplate = TEMPLATE;
  return model;
}

export async function serving(t: ExecutionContext, options: Partial<ServerOptions> = {}): Promise<Serving> {
  const model = options.model ?? (await adaptedModel());
  const lines: string[] = [];
  const server = await ModelServer.listen({
    model,
    served: [{ name: BASE, adapter: null }, ...ADAPTERS.map((name) => ({ name, adapter: name }))],
    host: "127.0.0.1",
    port: 0,
    token: TOKEN,
    origins: [],
    maxTokens: 100,
    maxTexts: 8,
    maxBody: 100_000,
    maxConcurrent: 64,
    maxQueue: 16,
    log: (line) => lines.push(line),
    onLost: () => t.fail("the device was lost"),
    ...options,
  });
  t.teardown(async () => {
    await server.close(0);
    model.dispose();
  });
  const post = (path: string, body: unknown, init: RequestInit = {}): Promise<Response> =>
    fetch(`${server.url}${path}`, {
      method: "POST",
      body: typeof body === "string" ? body : JSON.stringify(body),
      ...init,
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${TOKEN}`, ...init.headers },
    });
  const client = new OpenAI({ baseURL: server.url, apiKey: TOKEN, maxRetries: 0 });
  return { model, server, client, lines, post };
}

/** Polls until `holds` returns true; fails after ten seconds. */
export async function until(holds: () => boolean, what: string): Promise<void> {
  for (const end = performance.now() + 10_000; !holds();) {
    if (performance.now() > end) throw new Error(`${what} did not come`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
