/** A page's code blocks, and which of them are run, written, or compared: docs/design/pages.md has the rules. */

/** A fenced block: the word after the fence is its language, and the next one its name. */
export interface Block {
  language: string;
  name: string | undefined;
  text: string;
  /** The line of the fence, from 1. */
  line: number;
}

/** The steps of a page, in their sequence. */
export type Step =
  /** Commands, and their output. */
  | { kind: "commands"; block: Block; printed: Block | undefined }
  /** All TypeScript of the page as one program, at the position of its last block; and the output of each block. */
  | { kind: "program"; blocks: Block[]; printed: (Block | undefined)[] }
  /** A file to write. */
  | { kind: "file"; block: Block; name: string }
  /** An excerpt of a file of the repository. */
  | { kind: "excerpt"; block: Block; file: string };

/** Returns the fenced blocks of a page. Throws if one is not closed. */
export function blocksOf(page: string, text: string): Block[] {
  const blocks: Block[] = [];
  let open: (Block & { lines: string[] }) | undefined;
  for (const [i, line] of text.split("\n").entries()) {
    const fence = /^\s*```\s*(.*)$/.exec(line);
    if (fence === null) open?.lines.push(line);
    else if (open === undefined) {
      const [language = "", name] = (fence[1] as string).split(/\s+/);
      open = { language, name, text: "", line: i + 1, lines: [] };
    } else {
      const { lines, ...block } = open;
      blocks.push({ ...block, text: lines.map((one) => `${one}\n`).join("") });
      open = undefined;
    }
  }
  if (open !== undefined) throw new Error(`${page}:${open.line}: the block has no end`);
  return blocks;
}

/** Returns the steps of a page. Throws, with page and line, for a block that belongs to no step. */
export function stepsOf(page: string, text: string): Step[] {
  const blocks = blocksOf(page, text);
  const steps: Step[] = [];
  const program: Extract<Step, { kind: "program" }> = { kind: "program", blocks: [], printed: [] };
  const last = blocks.findLast(({ language, name }) => language === "ts" && name === undefined);
  for (const [i, block] of blocks.entries()) {
    const { language, name, line } = block;
    const wrong = (what: string): never => {
      throw new Error(`${page}:${line}: ${what}`);
    };
    const next = blocks[i + 1];
    const printed = next?.language === "text" ? next : undefined;
    if (name?.startsWith("examples/")) steps.push({ kind: "excerpt", block, file: name });
    else if (name !== undefined) {
      if (!/^[\w.-]+$/.test(name)) wrong(`"${name}" is no name of a file`);
      steps.push({ kind: "file", block, name });
    } else if (language === "sh") steps.push({ kind: "commands", block, printed });
    else if (language === "ts") {
      program.blocks.push(block);
      program.printed.push(printed);
      if (block === last) steps.push(program);
    } else if (language === "text") {
      const before = blocks[i - 1];
      if (before === undefined || before.name !== undefined || !["sh", "ts"].includes(before.language))
        wrong("what is printed stands behind the block that prints it");
    } else if (language === "python") {
      // The equivalent code of another library, next to ours.
      if (next?.language !== "ts") wrong("python stands in front of the ts that says the same");
    } else wrong(`nothing is done with a block of "${language}"`);
  }
  return steps;
}

/**
 * Describes the first difference between `printed` and `shown`; undefined if they agree. `…` within a line matches
 * any text, and alone on a line any lines. Colours and trailing spaces are ignored.
 */
export function difference(shown: string, printed: string): string | undefined {
  const bare = (text: string): string =>
    text
      .replace(/\u001b\[[\d;]*m/g, "")
      .replace(/[ \t]+$/gm, "")
      .replace(/^\n+|\n+$/g, "");
  const pattern = bare(shown)
    .split("\n")
    .map((line, i, lines) => {
      const end = i === lines.length - 1 ? "" : "\n";
      if (line.trim() === "…") return end === "" ? "[^]*" : "(?:.*\n)*?";
      return line.split("…").map(escaped).join(".*?") + end;
    })
    .join("");
  if (new RegExp(`^${pattern}$`).test(bare(printed))) return undefined;
  return `shown:\n${bare(shown)}\nprinted:\n${bare(printed)}`;
}

const escaped = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
