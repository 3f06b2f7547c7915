/**
 * Makes random calls of the public API with random arguments: `node --import=tsx test/fuzz/calls.ts SEED CALLS`.
 * Prints a line of JSON: the number of calls, the number of refused ones, and each refusal that was not a proper
 * `LowrankError`.
 */
import * as lowrank from "../../src/index.js";
import { tinyModel } from "../hashed.js";
import { isPublicExport, publicMembers } from "./declared.js";
import { generator, Pool, Thrown } from "./random.js";

/** A call that has not settled after this many milliseconds is no longer awaited. */
const PATIENCE_MS = 2_000;

interface Target {
  name: string;
  call(args: unknown[], held: Pool): unknown;
}

const isClass = (value: unknown): value is new (...args: unknown[]) => object =>
  typeof value === "function" && /^class\b/.test(Function.prototype.toString.call(value));

/** Small sizes of models, since the defaults are realistic ones. */
const SIZES = {
  GPT2: { vocab_size: 9, n_embd: 8, n_layer: 1, n_head: 2, n_positions: 8 },
  Llama: {
    vocab_size: 9,
    hidden_size: 8,
    intermediate_size: 8,
    num_hidden_layers: 1,
    num_attention_heads: 2,
  },
  ViT: {
    hidden_size: 8,
    intermediate_size: 8,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    image_size: 4,
    patch_size: 2,
    num_channels: 1,
  },
  BERT: {
    vocab_size: 9,
    hidden_size: 8,
    intermediate_size: 8,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    max_position_embeddings: 8,
  },
};

/** Adds the sizes of a small model to a configuration among `args`, which may override them. */
function withSizes(name: string, [config, ...rest]: unknown[]): unknown[] {
  const family = (["GPT2", "Llama", "ViT"] as const).find((one) => name.startsWith(one)) ?? "BERT";
  const plain = typeof config === "object" && config !== null && !Array.isArray(config);
  return [plain ? { ...SIZES[family], ...config } : config, ...rest];
}

/** Returns the functions, constructors and static functions of the package and of its namespaces. */
function exported(): Target[] {
  const found: Target[] = [];
  const visit = (prefix: string, space: Record<string, unknown>): void => {
    for (const [name, value] of Object.entries(space)) {
      // LowrankError accepts any message, as `Error` does.
      if (!isPublicExport(name) || value === lowrank.LowrankError) continue;
      if (isClass(value)) {
        found.push({ name: `new ${prefix}${name}`, call: (args) => new value(...args) });
        const own = value as unknown as Record<string, (...args: unknown[]) => unknown>;
        for (const of of publicMembers(value, true))
          found.push({
            name: `${prefix}${name}.${of}`,
            call: (args) => own[of]?.(...(of === "fromConfig" ? withSizes(name, args) : args)),
          });
      } else if (typeof value === "function")
        found.push({
          name: prefix + name,
          call: (args) => (value as (...all: unknown[]) => unknown)(...args),
        });
      else if (typeof value === "object" && value !== null && prefix.split(".").length < 3)
        visit(`${prefix}${name}.`, value as Record<string, unknown>);
    }
  };
  visit("", lowrank as unknown as Record<string, unknown>);
  return found;
}

/** Returns the methods and accessors of a class and its superclasses, with overrides applied. */
const membersOf = (() => {
  const known = new Map<object, Map<string, PropertyDescriptor>>();
  return (prototype: object): Map<string, PropertyDescriptor> => {
    const before = known.get(prototype);
    if (before !== undefined) return before;
    const above = Object.getPrototypeOf(prototype) as object;
    const members = new Map(above === Object.prototype ? [] : membersOf(above));
    const owner = prototype.constructor as unknown as { prototype: object; name: string };
    const open = new Set(publicMembers(owner));
    for (const [name, descriptor] of Object.entries(Object.getOwnPropertyDescriptors(prototype))) {
      if (open.has(name)) members.set(name, descriptor);
    }
    known.set(prototype, members);
    return members;
  };
})();

/** Returns a random method or accessor of a held object. */
function ofHeld(pool: Pool): Target | undefined {
  if (pool.held.length === 0) return undefined;
  const object = pool.of(pool.held);
  const members = [...membersOf(Object.getPrototypeOf(object) as object)];
  if (members.length === 0) return undefined;
  const [name, descriptor] = pool.of(members);
  const owner = object.constructor.name;
  if (typeof descriptor.value === "function")
    return { name: `${owner}.${name}`, call: (args) => (descriptor.value as Function).apply(object, args) };
  if (descriptor.set !== undefined && pool.below(2) === 0)
    return { name: `set ${owner}.${name}`, call: ([value]) => void descriptor.set?.call(object, value) };
  return { name: `get ${owner}.${name}`, call: () => descriptor.get?.call(object) as unknown };
}

/** Returns the initial objects: one valid object of each kind. */
async function seeds(): Promise<object[]> {
  const { nn, lora, optim, tensor, zeros, ones } = lowrank;
  const where = { device: "cpu" } as const;
  const model = new nn.Sequential(new nn.Linear(4, 3), new lora.Linear(3, 2, { r: 2 }));
  const llama = await lowrank.loadModel(tinyModel(), where);
  const settings = {
    model,
    optimizer: new optim.SGD(model.parameters(), { lr: 1 }),
    data: [],
    loss: () => ones([]),
  };
  const run = new lowrank.Trainer(settings);
  run.result.catch(() => {});
  return [
    tensor([1, 2, 3]),
    tensor(
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
      { requiresGrad: true },
    ),
    tensor([0, 1, 2], { dtype: "i32" }),
    zeros([2, 3, 4]),
    ones([], { dtype: "f16" }),
    zeros([0, 3]),
    model,
    new lora.Embedding(5, 3, { r: 1 }),
    new lora.MergedLinear(4, 6, { r: 2, enableLora: [true, false, true] }),
    new lora.Conv2d(2, 3, 3, { r: 1 }),
    new nn.Conv2d(2, 3, 3),
    new nn.ConvTranspose2d(2, 3, 3),
    new nn.Linear(3, 2),
    new nn.Embedding(5, 3),
    new nn.LayerNorm(4),
    new nn.RMSNorm(3),
    new nn.GroupNorm(1, 3),
    new nn.BatchNorm1d(3),
    new nn.BatchNorm2d(2),
    new nn.MultiheadAttention(4, 2),
    new nn.LSTM(3, 2),
    new nn.GRU(3, 2),
    new nn.GELU(),
    new nn.Flatten(),
    new nn.Upsample({ scaleFactor: 2 }),
    new nn.MaxPool1d(2),
    new nn.AvgPool2d(2),
    new nn.AdaptiveAvgPool1d(2),
    new nn.ModuleList([new nn.ReLU()]),
    new nn.ModuleDict({ x: new nn.Dropout(0.5) }),
    new optim.AdamW(model.parameters()),
    await optim.LoraFA.of(new lora.Linear(3, 2, { r: 2 })),
    llama,
    llama.tokenizer as object,
    lowrank.BertModel.fromConfig(SIZES.BERT, where),
    lowrank.GPT2LMHeadModel.fromConfig(SIZES.GPT2, where),
    lowrank.ViTForImageClassification.fromConfig(SIZES.ViT, where),
    run,
  ];
}

const KINDS = [
  lowrank.Tensor,
  lowrank.nn.Module,
  lowrank.optim.Optimizer,
  lowrank.Tokenizer,
  lowrank.Trainer,
] as const;

function holdable(value: unknown): value is object {
  return KINDS.some((kind) => value instanceof kind);
}

async function outcome(value: unknown): Promise<unknown> {
  const patience = new Promise((resolve) => setTimeout(resolve, PATIENCE_MS, "still running").unref());
  if (value instanceof Promise) return Promise.race([value, patience]);
  if (typeof value !== "object" || value === null || holdable(value)) return value;
  if (Symbol.asyncIterator in value) {
    const it = (value as AsyncIterable<unknown>)[Symbol.asyncIterator]();
    // A run reports its error by its events as well as by its result.
    const { result } = value as { result?: unknown };
    if (result instanceof Promise) result.catch(() => {});
    const first = await Promise.race([it.next(), patience]);
    void it.return?.(undefined);
    return first;
  }
  return value;
}

/**
 * Whether an error has the binding's own message for an argument that it does not convert: napi's codes are in
 * camel case.
 */
const ofBinding = ({ cause }: Error): boolean =>
  cause instanceof Error && /^[A-Z][a-z]/.test((cause as { code?: string }).code ?? "");

/** Whether a refusal is proper: worded by this package, and not caused by an internal fault. */
const excused = (error: unknown): boolean =>
  error instanceof Thrown ||
  (error instanceof lowrank.LowrankError &&
    error.code !== "ERR_INTERNAL" &&
    !ofBinding(error) &&
    !/undefined is not|null is not|Cannot (read|convert)|is not (a function|iterable)|\[object /.test(
      error.message,
    ));

async function main(seed: number, calls: number): Promise<void> {
  const pool = new Pool(generator(seed));
  const functions = exported();
  for (const one of await seeds()) pool.hold(one);
  const wrong = new Map<string, { count: number; message: string }>();
  const uncaught = (error: unknown): void => note("uncaught", error);
  process.on("uncaughtException", uncaught);
  process.on("unhandledRejection", uncaught);
  function note(name: string, error: unknown): void {
    if (excused(error)) {
      refused++;
      return;
    }
    const kind = error instanceof Error ? error.name : typeof error;
    const message =
      error instanceof Error
        ? `${error.message}\n${error.stack?.split("\n").slice(1, 4).join("\n")}`
        : String(error);
    const key = `${name}: ${kind}`;
    wrong.set(key, { count: (wrong.get(key)?.count ?? 0) + 1, message });
  }
  let refused = 0;
  for (let i = 0; i < calls; i++) {
    const target = (pool.below(2) === 0 ? ofHeld(pool) : undefined) ?? pool.of(functions);
    const args = Array.from({ length: pool.below(5) }, () => pool.argument());
    if (process.env["FUZZ_TRACE"])
      process.stderr.write(`${performance.now().toFixed(0)} ${i} ${target.name}\n`);
    try {
      const value = await outcome(target.call(args, pool));
      if (holdable(value)) pool.hold(value);
    } catch (error) {
      note(target.name, error);
    }
    if (i % 500 === 0) {
      const [sum] = await lowrank.tensor([1, 2], { device: "cpu" }).add(1).sum().data();
      if (sum !== 5) throw new Error(`after ${i} calls [1, 2] + 1 sums to ${sum}`);
    }
  }
  process.stdout.write(`${JSON.stringify({ calls, refused, wrong: Object.fromEntries(wrong) })}\n`);
}

const [seed = "1", calls = "1000"] = process.argv.slice(2);
await main(Number(seed), Number(calls));
process.exit(0);
