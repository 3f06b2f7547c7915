/** The published declarations compile, and so does the code of the docs and examples against them. */
import { execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";

import { blocksOf } from "./docs/page.js";
import { publishedManifest } from "../scripts/packages.mjs";
import { temporary } from "./hashed.js";
import { installedProject } from "./packed.js";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Creates a folder next to the installed package, with Node's types. */
function project(): string {
  const folder = temporary();
  mkdirSync(join(folder, "node_modules", "@types"), { recursive: true });
  cpSync(join(installedProject(), "node_modules", "lowrank"), join(folder, "node_modules", "lowrank"), {
    recursive: true,
  });
  const { dependencies } = publishedManifest();
  for (const name of ["@types/node", "undici-types", ...Object.keys(dependencies)]) {
    mkdirSync(dirname(join(folder, "node_modules", name)), { recursive: true });
    symlinkSync(join(root, "node_modules", name), join(folder, "node_modules", name), "junction");
  }
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  return folder;
}

const STRICT = {
  target: "es2023",
  lib: ["es2023", "esnext.disposable"],
  module: "nodenext",
  moduleResolution: "nodenext",
  types: ["node"],
  strict: true,
  noEmit: true,
  skipLibCheck: false,
};

/** Returns the compiler's errors for files of a folder. */
function errorsOf(folder: string, files: readonly string[], options: object = {}): string {
  const config = { compilerOptions: { ...STRICT, ...options }, files };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(config));
  try {
    execFileSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", "."], {
      cwd: folder,
      encoding: "utf8",
    });
    return "";
  } catch (error) {
    return (error as { stdout: string }).stdout;
  }
}

/** Checks types that a program relies on; the compiler reports any that changed. */
const PROGRAM = `
import {
  BertModel, BertForSequenceClassification, CausalLM, loadModel, nn, Tensor, Trainer, optim,
  type BlockDType, type DType, type FloatDType, type Task, type TaskModels,
} from "lowrank";

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<A, B>(..._: Equal<A, B> extends true ? [] : [never]): void {}

type Blocks = "q4_0" | "q4_1" | "q5_0" | "q5_1" | "q8_0" | "q2_k" | "q3_k" | "q4_k" | "q5_k" | "q6_k" | "iq4_nl" | "nf4";
same<DType, "f32" | "f16" | "bf16" | "i32" | BlockDType>();
same<FloatDType, "f32" | "f16" | "bf16">();
same<BlockDType, Blocks>();
same<Tensor["dtype"], DType>();
// @ts-expect-error no dtype is called so
const wrong: DType = "f64";

const any = await loadModel("folder");
same<typeof any, TaskModels[Task]>();
// @ts-expect-error a classifier generates nothing
any.generate("once");
if (any instanceof CausalLM) for await (const { text } of any.generate("once")) console.log(text);
const encoder = await loadModel("folder", { task: "feature-extraction", device: "cpu" });
same<typeof encoder, TaskModels["feature-extraction"]>();
const [vector] = await encoder.embed(["a"]);
const causal = await loadModel("folder", { task: "causal-lm" });
same<typeof causal, CausalLM>();
void [wrong, vector, BertModel, BertForSequenceClassification, nn, Trainer, optim];
`;

test("declarations compile without skipLibCheck, with the expected dtypes and model types", (t) => {
  t.timeout(300_000);
  const folder = project();
  const dist = join(folder, "node_modules", "lowrank", "dist");
  const declarations = readdirSync(dist, { recursive: true, encoding: "utf8" })
    .filter((name) => /\.d\.c?ts$/.test(name))
    .map((name) => join("node_modules/lowrank/dist", name));
  t.true(declarations.length > 200);
  writeFileSync(join(folder, "program.ts"), PROGRAM);
  writeFileSync(join(folder, "required.cts"), 'import lowrank = require("lowrank");\nvoid lowrank.tensor;\n');
  t.is(errorsOf(folder, [...declarations, "program.ts", "required.cts"]), "");
  t.is(errorsOf(folder, ["program.ts"], { module: "esnext", moduleResolution: "bundler" }), "");
});

test("code of the docs, of the README and of the examples compiles under strict", (t) => {
  t.timeout(300_000);
  const folder = project();
  const files: string[] = [];
  const write = (name: string, text: string): void => {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), `${text}\nexport {};\n`);
    files.push(name);
  };
  const isCode = ({ language, name }: { language: string; name: string | undefined }): boolean =>
    language === "ts" && name === undefined;
  for (const page of readdirSync(join(root, "docs")).filter((name) => name.endsWith(".md"))) {
    const blocks = blocksOf(page, readFileSync(join(root, "docs", page), "utf8")).filter(isCode);
    // All blocks of a page are one program.
    if (blocks.length > 0) write(`docs/${page}.ts`, blocks.map(({ text }) => text).join("\n"));
  }
  const README = blocksOf("README.md", readFileSync(join(root, "README.md"), "utf8")).filter(isCode);
  for (const { line, text } of README) write(`readme/${line}.ts`, text);
  const examples = readdirSync(join(root, "examples"), { recursive: true, encoding: "utf8" });
  for (const name of examples.filter((one) => one.endsWith(".ts") && !one.includes("node_modules")))
    write(`examples/${name}`, readFileSync(join(root, "examples", name), "utf8"));
  t.true(files.length > 12 && existsSync(join(folder, files[0] as string)));
  t.is(errorsOf(folder, files), "");
});
