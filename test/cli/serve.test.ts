/** `lowrank serve` as a process: two adapters, curl and OpenAI's client, Ctrl-C. */
import { execFile, spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";

import test from "ava";
import OpenAI from "openai";

import { lora, loadModel } from "../../src/index.js";
import { temporary } from "../hashed.js";
import { ADAPTERS, adaptedModel, TEMPLATE } from "../serve/serving.js";
import { lowrank, ONE_LINE, type Ended } from "./lowrank.js";

interface Announced {
  url: string;
  token?: string;
  models: string[];
}

/** Runs the command until `work` has ended, and then interrupts it, unless `work` has. */
async function served(
  argv: string[],
  work: (announced: Announced, interrupt: () => void) => Promise<void>,
  env: NodeJS.ProcessEnv = {},
): Promise<Ended> {
  let failed: { error: unknown } | undefined;
  const ended = await lowrank(["serve", "--port", "0", "--device", "cpu", "--json", ...argv], {
    env: { LOWRANK_TOKEN: undefined, ...env },
    watch: (line, child) => {
      let asked = false;
      const interrupt = (): void => {
        if (!asked) child.kill("SIGINT");
        asked = true;
      };
      void work(JSON.parse(line) as Announced, interrupt)
        .catch((error: unknown) => (failed = { error }))
        .finally(interrupt);
    },
  });
  if (failed !== undefined) throw failed.error;
  return ended;
}

/** Creates a model, a template, and folders of two adapters for it. */
async function files(): Promise<{ model: string; template: string; adapters: string[] }> {
  const model = await adaptedModel();
  const folder = temporary();
  const template = join(folder, "template.jinja");
  writeFileSync(template, TEMPLATE);
  for (const name of ADAPTERS) {
    // Each is stored with another template.
    if (model.tokenizer)
      model.tokenizer.chatTemplate = `${name}: ${TEMPLATE}`.repeat(1 + ADAPTERS.indexOf(name));
    await lora.saveAdapter(model, folder, { name });
  }
  const { folder: source } = model;
  model.dispose();
  return { model: source as string, template, adapters: ADAPTERS.map((name) => join(folder, name)) };
}

const MESSAGES = [{ role: "user" as const, content: "the whale" }];

test.serial("two adapters by name over one base, for OpenAI's client and for curl", async (t) => {
  const { model, template, adapters } = await files();
  const [ada, ben] = adapters as [string, string];
  const argv = ["--model", model, "--name", "tiny", "--adapter", `ada=${ada}`, "--adapter", ben];
  const { status, stdout, stderr } = await served(
    [...argv, "--chat-template", template, "--max-tokens", "24"],
    async ({ url, token, models }) => {
      t.deepEqual(models, ["tiny", "ada", "ben"]);
      t.regex(token ?? "", /^[\w-]{43}$/);
      const client = new OpenAI({ baseURL: url, apiKey: token as string, maxRetries: 0 });
      const texts = new Map<string, string>();
      for (const name of models) {
        const { choices, usage } = await client.chat.completions.create({
          model: name,
          messages: MESSAGES,
          temperature: 0,
          max_tokens: 1000,
        });
        texts.set(name, choices[0]?.message.content ?? "");
        // The limit of the command.
        t.true((usage?.completion_tokens as number) <= 24);
      }
      t.is(new Set(texts.values()).size, 3);
      // The same adapter, loaded by the library.
      const own = await loadModel(model, { device: "cpu", task: "causal-lm" });
      if (own.tokenizer) own.tokenizer.chatTemplate = TEMPLATE;
      await lora.loadAdapter(own, ben, { name: "ben" });
      let text = "";
      for await (const piece of own.generate(MESSAGES, { maxNewTokens: 24 })) text += piece.text;
      own.dispose();
      t.is(texts.get("ben") ?? "-", text);

      if (spawnSync("curl", ["--version"]).status !== 0) return t.log("there is no curl");
      const curl = async (body: object): Promise<string> => {
        const headers = ["-H", `Authorization: Bearer ${token}`, "-H", "Content-Type: application/json"];
        const args = ["-sN", `${url}/chat/completions`, ...headers, "-d", JSON.stringify(body)];
        return (await promisify(execFile)("curl", args)).stdout;
      };
      const body = { model: "ada", messages: MESSAGES, temperature: 0 };
      const answer = JSON.parse(await curl(body)) as OpenAI.ChatCompletion;
      t.is(answer.choices[0]?.message.content ?? "", texts.get("ada") ?? "-");
      const streamed = await curl({ ...body, stream: true });
      t.true(streamed.endsWith("data: [DONE]\n\n"));
      const deltas = [...streamed.matchAll(/^data: (\{.*)$/gm)].map(
        ([, json]) =>
          (JSON.parse(json as string) as OpenAI.ChatCompletionChunk).choices[0]?.delta.content ?? "",
      );
      t.is(deltas.join(""), texts.get("ada") ?? "-");
    },
  );
  t.is(status, 130);
  t.is(stdout.trimEnd().split("\n").length, 1);
  t.regex(
    stderr,
    /^(lowrank: POST \/v1\/chat\/completions 200 (tiny|ada|ben) \d+\+\d+ tokens \w+ [\d.]+s req_\w+\n)+$/,
  );
});

test.serial("each adapter's messages are rendered with the template that it was trained with", async (t) => {
  const { model, adapters } = await files();
  const { status } = await served(
    ["--model", model, "--name", "tiny", ...adapters.flatMap((folder) => ["--adapter", folder])],
    async ({ url, token }) => {
      const client = new OpenAI({ baseURL: url, apiKey: token as string, maxRetries: 0 });
      const promptTokens = async (name: string): Promise<number | undefined> => {
        const asked = { model: name, messages: MESSAGES, max_tokens: 1 };
        return (await client.chat.completions.create(asked)).usage?.prompt_tokens;
      };
      const { tokenizer } = await loadModel(model, { device: "cpu", task: "causal-lm" });
      const text = "user: the whale\nassistant:";
      // In any order, including the base, which has no template.
      for (const name of ["ben", "ada", "tiny", "ben", "ada"]) {
        if (name === "tiny") {
          const error = await t.throwsAsync(promptTokens(name), { instanceOf: OpenAI.BadRequestError });
          t.regex(error?.message ?? "", /no chat template/);
        } else {
          const prompt = `${name}: ${text}`.repeat(1 + ADAPTERS.indexOf(name));
          t.is(await promptTokens(name), tokenizer?.encode(prompt, { addSpecialTokens: false }).length, name);
        }
      }
    },
  );
  t.is(status, 130);
});

test.serial("Ctrl-C lets an answer end, and a given token is not printed", async (t) => {
  const token = "0123456789-abcdefghij";
  const { model } = await files();
  let tokens = 0;
  const { status, stderr } = await served(
    ["--model", model, "--name", "tiny"],
    async ({ url, token: printed }, interrupt) => {
      t.is(printed, undefined);
      const client = new OpenAI({ baseURL: url, apiKey: token, maxRetries: 0 });
      const asked = { model: "tiny", prompt: "a", temperature: 0, max_tokens: 100, stream: true } as const;
      for await (const { usage } of await client.completions.create({
        ...asked,
        stream_options: { include_usage: true },
      })) {
        if (tokens === 0) interrupt();
        tokens = usage?.completion_tokens ?? 1;
      }
    },
    { LOWRANK_TOKEN: token },
  );
  t.is(status, 130);
  t.true(tokens > 1);
  t.regex(stderr, /^lowrank: POST \/v1\/completions 200 tiny 1\+\d+ tokens \w+ [\d.]+s req_\w+\n$/);
});

test.serial("an address that other machines can reach is warned of", async (t) => {
  const { model } = await files();
  const { status, stderr } = await served(["--model", model, "--host", "0.0.0.0"], async () => {});
  t.is(status, 130);
  t.regex(stderr, /^lowrank: warning: 0\.0\.0\.0 can be reached from other machines, and requests are not/);
});

test.serial("an invalid adapter, name or host is one line, before the server listens", async (t) => {
  const { model, adapters } = await files();
  const [ada = ""] = adapters;
  const cases: [argv: string[], status: number, message: RegExp][] = [
    [
      ["--model", model, "--adapter", `x=${join(ada, "absent")}`],
      1,
      /absent.*(no such|not there|adapter_config)/,
    ],
    [["--model", model, "--adapter", `ada=${ada}`, "--name", "ada"], 2, /give the base another with --name/],
    [["--model", model, "--host", "203.0.113.1"], 1, /cannot listen on 203\.0\.113\.1:0/],
  ];
  for (const [argv, status, message] of cases) {
    const ended = await lowrank(["serve", "--port", "0", "--device", "cpu", ...argv]);
    t.is(ended.status, status, argv.join(" "));
    t.is(ended.stdout, "");
    t.regex(ended.stderr, message);
    t.regex(ended.stderr, ONE_LINE);
  }
});
