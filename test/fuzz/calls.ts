/**
 * Random calls of the public API with random arguments, in a process of its own:
 *
 *   node --import=tsx test/fuzz/calls.ts SEED CALLS
 *
 * Prints a line of JSON: the calls made, those that were refused, and each refusal that was no `LowrankError`.
 */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import * as lowrank from "../../src/index.js";
import { generator, Pool, Thrown } from "./random.js";

/** What a call may do for longer than its turn is left alone after this long. */
const PATIENCE_MS = 2_000;

interface Target {
  name: string;
  call(args: unknown[], held: Pool): unknown;
}

const isClass = (value: unknown): value is new (...args: unknown[]) => object =>
  typeof value === "function" && /^class\b/.test(Function.prototype.toString.call(value));

/** Names that are marked `@internal`: they are no part of the declarations, and check nothing. */
const INTERNAL = new Set<string>();
const source = fileURLToPath(new URL("../../src", import.meta.url));
for (const file of readdirSync(source, { recursive: true, encoding: "utf8" }).filter((name) =>
  name.endsWith(".ts"),
)) {
  const marked =
    /\/\*\* @internal(?:[^*]|\*(?!\/))*\*\/\s*(?:(?:export|function|class|const|async|static|override|abstract|get|set|protected)\s+|\*)*(\w+)/g;
  for (const [, name] of readFileSync(`${source}/${file}`, "utf8").matchAll(marked))
    INTERNAL.add(name as string);
}

/** Functions and constructors of the package and of its namespaces. */
function exported(): Target[] {
  const found: Target[] = [];
  const visit = (prefix: string, space: Record<string, unknown>): void => {
    for (const [name, value] of Object.entries(space)) {
      if (INTERNAL.has(name)) continue;
      if (isClass(value)) found.push({ name: `new ${prefix}${name}`, call: (args) => new value(...args) });
      else if (typeof value === "function")
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

/** A method or an accessor of something that is held. */
function ofHeld(pool: Pool): Target | undefined {
  if (pool.held.length === 0) return undefined;
  const object = pool.of(pool.held) as Record<string, unknown>;
  const members: [string, PropertyDescriptor][] = [];
  for (
    let at: object | null = object;
    at !== null && at !== Object.prototype;
    at = Object.getPrototypeOf(at) as object | null
  )
    members.push(
      ...Object.entries(Object.getOwnPropertyDescriptors(at)).filter(
        ([name]) => name !== "constructor" && at !== object,
      ),
    );
  if (members.length === 0) return undefined;
  const [name, descriptor] = pool.of(members);
  const owner = object.constructor?.name ?? "object";
  if (typeof descriptor.value === "function")
    return { name: `${owner}.${name}`, call: (args) => (descriptor.value as Function).apply(object, args) };
  if (descriptor.set !== undefined && pool.below(2) === 0)
    return { name: `set ${owner}.${name}`, call: ([value]) => void descriptor.set?.call(object, value) };
  return { name: `get ${owner}.${name}`, call: () => descriptor.get?.call(object) as unknown };
}

/** What to begin with: of each kind one that fits. */
function seeds(): object[] {
  const { nn, lora, optim, tensor, zeros, ones } = lowrank;
  const model = new nn.Sequential(new nn.Linear(4, 3), new lora.Linear(3, 2, { r: 2 }));
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
    new nn.Conv2d(2, 3, 3),
    new nn.LayerNorm(4),
    new optim.AdamW(model.parameters()),
  ];
}

function holdable(value: unknown): value is object {
  return (
    value instanceof lowrank.Tensor ||
    value instanceof lowrank.nn.Module ||
    value instanceof lowrank.optim.AdamW
  );
}

async function outcome(value: unknown): Promise<unknown> {
  const patience = new Promise((resolve) => setTimeout(resolve, PATIENCE_MS, "still running").unref());
  if (value instanceof Promise) return Promise.race([value, patience]);
  if (typeof value !== "object" || value === null || holdable(value)) return value;
  if (Symbol.asyncIterator in value) {
    const it = (value as AsyncIterable<unknown>)[Symbol.asyncIterator]();
    // A run tells what went wrong by its events as well as by its result.
    const { result } = value as { result?: unknown };
    if (result instanceof Promise) result.catch(() => {});
    const first = await Promise.race([it.next(), patience]);
    void it.return?.(undefined);
    return first;
  }
  return value;
}

const excused = (error: unknown): boolean => error instanceof lowrank.LowrankError || error instanceof Thrown;

async function main(seed: number, calls: number): Promise<void> {
  const pool = new Pool(generator(seed));
  const functions = exported();
  for (const one of seeds()) pool.hold(one);
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
    if (process.env["FUZZ_TRACE"]) process.stderr.write(`${i} ${target.name}\n`);
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
