import { basename, resolve } from "node:path";
import { Command } from "commander";
import { ADAPTER_NAME, isAdapterName } from "../lora/options/adapter-name.js";
import { locateDefaultModel } from "../models/default.js";
import type { Quantization } from "../models/quantization.js";
import type { ModelServer } from "../serve/server.js";
import type { StorageType } from "../train/options.js";
import { makeFlagByName } from "./options/flags.js";
import { formatJsonLine } from "./terminal/escaped.js";
import { notice, UsageError, warn } from "./terminal/failure.js";
import { type HubFlags, declareHubOptions, MODEL } from "./options/hub.js";
import { runInterruptible } from "./terminal/interrupt.js";
import { loadLanguageModel, resolveModel } from "./options/models.js";
import { makeDtypeOption, runInStorage } from "./options/storage.js";
import * as value from "./options/values.js";

interface Flags extends HubFlags {
  model?: string | undefined;
  name?: string | undefined;
  adapter?: string[] | undefined;
  chatTemplate?: string | undefined;
  host: string;
  port: number;
  token?: string | undefined;
  allowOrigin?: string[] | undefined;
  maxTokens: number;
  maxConcurrent: number;
  maxQueue: number;
  maxBodySize: number;
  dtype?: StorageType | undefined;
  quantize?: Quantization | undefined;
  device: string;
  json?: boolean | undefined;
}

/** Milliseconds for running answers to finish after the first Ctrl-C. */
const GRACE_MS = 10_000;

export function createServeCommand(): Command {
  const command = new Command("serve").description(
    "serve a model and its adapters with OpenAI's HTTP API: chat completions, completions, models",
  );
  return declareHubOptions(command)
    .option("--model <name>", `${MODEL}; default: the first adapter's base model, or the embedded one`)
    .option("--name <name>", "the base model's name in requests; default: the last part of --model")
    .option(
      "--adapter <name=folder>",
      "an adapter and its name in requests; may be given several times",
      value.collect,
    )
    .addOption(makeFlagByName("chatTemplate"))
    .option("--host <address>", "the address to listen on", "127.0.0.1")
    .option("--port <n>", "the port to listen on; 0 for any free port", value.parsePort, 8080)
    .option(
      "--token <text>",
      "the bearer token of requests, at least 16 characters; default: LOWRANK_TOKEN, or a new token, which is printed",
    )
    .option(
      "--allow-origin <origin>",
      "allow requests from web pages of this origin (CORS); may be given several times",
      value.collect,
    )
    .option("--max-tokens <n>", "maximum tokens per answer", value.parseCount, 1024)
    .option("--max-concurrent <n>", "maximum texts generated at once", value.parseCount, 32)
    .option(
      "--max-queue <n>",
      "maximum waiting requests; further ones get status 429",
      value.parseCountFromZero,
      128,
    )
    .option("--max-body-size <size>", "maximum size of a request body", value.parseByteSize, 4_000_000)
    .addOption(makeDtypeOption())
    .addOption(makeFlagByName("quantize"))
    .option("--device <name>", "auto, cpu, gpu or gpu:N", value.parseDevice, "auto")
    .option("--json", "print the address, a new token and the models as JSON")
    .action(() =>
      runInterruptible((signal) =>
        runInStorage(command.opts<Flags>().dtype, () => serve(command.opts<Flags>(), signal)),
      ),
    );
}

/** An adapter and its name in requests. */
interface NamedAdapter {
  name: string;
  folder: string;
}

async function serve(flags: Flags, signal: AbortSignal): Promise<void> {
  const adapters = parseAdapters(flags.adapter ?? []);
  const { model: source, revision } = resolveModel({
    ...flags,
    adapters: adapters.map(({ folder }) => folder),
  });
  const name = flags.name ?? chooseModelName(source);
  if (name === "") throw new UsageError("--name must not be empty");
  if (adapters.some((adapter) => adapter.name === name))
    throw new UsageError(`--adapter ${name}: the base has this name; give the base another with --name`);
  const origins = (flags.allowOrigin ?? []).map(parseOrigin);
  const { given, token } = await resolveToken(flags.token);
  const [{ model }, { ModelServer }, lora] = await Promise.all([
    loadLanguageModel({ ...flags, model: source, revision, adapters: [], signal }),
    import("../serve/server.js"),
    import("../lora/index.js"),
  ]);
  let server: ModelServer | undefined;
  try {
    for (const adapter of adapters) {
      signal.throwIfAborted();
      await lora.loadAdapter(model, adapter.folder, { name: adapter.name });
    }
    signal.throwIfAborted();
    const lost = new AbortController();
    const { maxConcurrent, maxQueue, maxBodySize: maxBody, maxTokens, host, port } = flags;
    const served = [
      { name, adapter: null },
      ...adapters.map((adapter) => ({ name: adapter.name, adapter: adapter.name })),
    ];
    const limits = { maxConcurrent, maxQueue, maxBody, maxTokens, maxTexts: Math.min(maxConcurrent, 16) };
    server = await ModelServer.listen({
      ...limits,
      model,
      served,
      host,
      port,
      token,
      origins,
      log: notice,
      onLost: (error) => lost.abort(error),
    });
    announce(server, served, flags, given ? undefined : token);
    await rejectOnAbort(AbortSignal.any([signal, lost.signal]));
  } finally {
    await server?.close(GRACE_MS);
    model.dispose();
  }
}

/** Prints the address, a new token and the models. */
function announce(
  { url, open }: ModelServer,
  served: readonly { name: string }[],
  { host, json }: Flags,
  token: string | undefined,
): void {
  const models = served.map((model) => model.name);
  const lines = [
    `listening on ${url}`,
    ...(token ? [`token: ${token}`] : []),
    `models: ${models.join(", ")}`,
  ];
  process.stdout.write(
    json ? `${formatJsonLine({ url, ...(token && { token }), models })}\n` : `${lines.join("\n")}\n`,
  );
  if (open)
    warn(
      `${host} can be reached from other machines, and requests are not encrypted; put a TLS proxy in front`,
    );
}

/** Rejects with the signal's reason once it is aborted. */
function rejectOnAbort(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const end = (): void => reject(signal.reason as Error);
    if (signal.aborted) end();
    else signal.addEventListener("abort", end, { once: true });
  });
}

/** Returns the token of requests, and whether the user gave it. */
async function resolveToken(flag: string | undefined): Promise<{ given: boolean; token: string }> {
  const token = flag ?? process.env["LOWRANK_TOKEN"];
  if (token === undefined)
    return { given: false, token: (await import("../http/local-access.js")).drawToken() };
  const what = flag === undefined ? "LOWRANK_TOKEN" : "--token";
  if (!/^[\x21-\x7e]{16,}$/.test(token))
    throw new UsageError(`${what} must have at least 16 characters, and no spaces or letters beyond ASCII`);
  return { given: true, token };
}

/** Parses `name=folder`, or a folder, whose last path component becomes the name. */
function parseAdapters(given: readonly string[]): NamedAdapter[] {
  const adapters = given.map((text) => {
    const index = text.indexOf("=");
    const folder = text.slice(index + 1);
    const name = index < 0 ? basename(resolve(folder)) : text.slice(0, index);
    if (!isAdapterName(name)) throw new UsageError(`--adapter ${text}: its name must be ${ADAPTER_NAME}`);
    if (folder === "") throw new UsageError(`--adapter ${text}: give a folder, as in --adapter ${name}=DIR`);
    return { name, folder };
  });
  const twice = adapters.find(({ name }, i) => adapters.findIndex((other) => other.name === name) < i);
  if (twice !== undefined) throw new UsageError(`--adapter ${twice.name}: two adapters have this name`);
  return adapters;
}

/** Returns the base model's default name in requests. */
function chooseModelName(source: string): string {
  if (source === locateDefaultModel()) return "default";
  return (
    basename(source)
      .replace(/@[^@]*$/, "")
      .replace(/\.gguf$/i, "") || source
  );
}

function parseOrigin(text: string): string {
  const origin = URL.canParse(text) ? new URL(text).origin : "null";
  if (origin === text) return text;
  throw new UsageError(`--allow-origin ${text} must be an origin, such as http://localhost:5173`);
}
