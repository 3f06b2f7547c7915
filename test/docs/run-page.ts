/** Runs the code of a page in a separate folder. */
import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { difference, stepsOf, type Block, type Step } from "./page.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const TSX = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
/** Separates the outputs of two blocks of a program. */
const MARK = "\u001e";

/** The environment of a page. */
export interface Place {
  /** The working folder; commands may leave it. */
  folder: string;
  /** Variables in addition to the variables of this process. */
  env: Record<string, string>;
  /** Folders that are searched first for commands. */
  commands: readonly string[];
}

/** Runs a page; throws, with page and line, if something fails or prints other output than shown. */
export async function runPage(page: string, text: string, place: Place): Promise<void> {
  const here = { ...place };
  for (const step of stepsOf(page, text)) await run(page, step, here);
}

async function run(page: string, step: Step, place: Place): Promise<void> {
  const compare = (block: Block | undefined, printed: string): void => {
    const other = block && difference(block.text, printed);
    if (other !== undefined) throw new Error(`${page}:${block?.line}: ${other}`);
  };
  switch (step.kind) {
    case "file":
      writeFileSync(join(place.folder, step.name), step.block.text);
      break;
    case "excerpt": {
      const bare = (one: string): string => one.replace(/\s+/g, " ").trim();
      const file = readFileSync(join(root, step.file), "utf8");
      if (!bare(file).includes(bare(step.block.text)))
        throw new Error(`${page}:${step.block.line}: it does not stand in ${step.file}`);
      break;
    }
    case "commands": {
      const left = join(place.env["PAGE_STATE"] as string, "folder");
      const script = `set -e\n${ended(step.block.text)}\npwd > "${left}"\n`;
      const { output } = await start(`${page}:${step.block.line}`, "sh", ["-c", `{ ${script}} 2>&1`], place);
      place.folder = readFileSync(left, "utf8").trim();
      compare(step.printed, output);
      break;
    }
    case "program": {
      const code = step.blocks.map((block) => `process.stdout.write("${MARK}");\n${block.text}`).join("\n");
      writeFileSync(join(place.folder, "page.ts"), code);
      const args = ["--import", TSX, "page.ts"];
      const where = `${page}:${step.blocks[0]?.line}`;
      const printed = (await start(where, process.execPath, args, place)).output.split(MARK).slice(1);
      for (const [i, block] of step.printed.entries()) compare(block, printed[i] ?? "");
    }
  }
}

/**
 * Returns the commands, with Ctrl-C sent to those that run "until Ctrl-C", as a comment says, after their first
 * output.
 */
function ended(commands: string): string {
  return commands.replace(/^(.*\S)\s+#.*until Ctrl-C.*$/gm, (_, command: string) =>
    [
      "until_said=$(mktemp)",
      `${command} > "$until_said" 2>&1 &`,
      'while ! [ -s "$until_said" ]; do kill -0 $!; sleep 0.05; done',
      "kill -INT $!",
      'wait $! || [ $? -eq 130 ]; cat "$until_said"; rm "$until_said"',
    ].join("\n"),
  );
}

/** The running commands, of all pages, and the waiting ones. */
let running = 0;
const waiting: (() => void)[] = [];

/** Runs a command when a core is free for it. */
async function start(...command: Parameters<typeof startNow>): Promise<{ output: string }> {
  if (running >= availableParallelism()) await new Promise<void>((resolve) => waiting.push(resolve));
  else running += 1;
  try {
    return await startNow(...command);
  } finally {
    const next = waiting.shift();
    if (next === undefined) running -= 1;
    else next();
  }
}

/** Runs a command to its end; throws with its output if it fails. */
function startNow(
  where: string,
  command: string,
  args: readonly string[],
  { folder, env, commands }: Place,
): Promise<{ output: string }> {
  // npm passes variables to its scripts, such as this suite, which would refer to another project.
  const own = Object.entries(process.env).filter(
    ([name]) => !/^(npm_|NODE_OPTIONS$|FORCE_COLOR$)/i.test(name),
  );
  const path = [...commands, process.env["PATH"] ?? ""].join(delimiter);
  return new Promise((done, failed) => {
    const child = execFile(
      command,
      args,
      {
        cwd: folder,
        encoding: "utf8",
        env: { ...Object.fromEntries(own), NO_COLOR: "1", ...env, PATH: path },
        maxBuffer: 2 ** 26,
      },
      (error, stdout, stderr) =>
        error === null
          ? done({ output: stdout })
          : failed(new Error(`${where}: status ${error.code}\n${stdout}${stderr}`, { cause: error })),
    );
    // A conversation ends with its input.
    child.stdin?.end();
  });
}
