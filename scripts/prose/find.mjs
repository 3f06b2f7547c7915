import { PHRASES } from "./phrases.mjs";

/** The comments and titles in a line of code, by extension. */
const COMMENT = /^\s*(?:\/\/[/!]?|\/?\*)(.*)|\s\/\/ (.*)/;
const TITLE = /\b(?:test|t\.throws\w*)(?:\.\w+)*\(\s*["'`](.*)/;
const CODE = { ts: [COMMENT, TITLE], mjs: [COMMENT], mts: [COMMENT], cjs: [COMMENT], rs: [COMMENT] };

/** Yields the prose of a line of code. */
function* proseOfCode(line, patterns) {
  for (const pattern of patterns) {
    const match = pattern.exec(line);
    if (match !== null) yield match[1] ?? match[2];
  }
}

/** Yields the lines with prose of a file: `{ line, text }`, counted from 1. Code in a page is left out. */
export function* readProse(path, text) {
  const extension = path.slice(path.lastIndexOf(".") + 1);
  let fenced = false;
  for (const [index, line] of text.split("\n").entries()) {
    if (extension === "md") {
      if (line.trimStart().startsWith("```")) fenced = !fenced;
      else if (!fenced) yield { line: index + 1, text: line.replaceAll(/`[^`]*`/g, "``") };
    } else {
      for (const prose of proseOfCode(line, CODE[extension])) yield { line: index + 1, text: prose };
    }
  }
}

/** Returns the phrases in a file: `{ line, text, remedy }`; `read` returns its text, if it has prose. */
export function findPhrases(path, read) {
  if (!/\.(md|ts|mts|mjs|cjs|rs)$/.test(path)) return [];
  const found = [];
  for (const { line, text } of readProse(path, read())) {
    for (const [pattern, remedy] of PHRASES) {
      const match = pattern.exec(text);
      if (match !== null) found.push({ line, text: match[0], remedy });
    }
  }
  return found;
}
