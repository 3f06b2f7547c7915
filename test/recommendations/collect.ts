/** The messages in the sources that recommend a command, a flag or an option. */
import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";

import ts from "typescript";

const src = fileURLToPath(new URL("../../src", import.meta.url));

/** A message in the sources: `…` for an inserted value, `<batchSize>` for an option's name. */
export interface Message {
  file: string;
  text: string;
}

/** Calls whose texts describe an option or a command, and appear only in --help. */
const HELP = new Set([
  "option",
  "requiredOption",
  "Option",
  "description",
  "addHelpText",
  "argument",
  "choice",
]);
/** Calls that name an option. */
const NAMING = new Set(["optionName", "optionSetting", "name"]);
/** A command or a flag in a text, or the name of an option. */
const RECOMMENDS = /\blowrank [a-z]+ |--[a-z][a-z-]+|<[a-zA-Z]+>/;

function calledName(node: ts.Node): string | undefined {
  if (!ts.isCallExpression(node) && !ts.isNewExpression(node)) return undefined;
  const { expression } = node;
  if (ts.isIdentifier(expression)) return expression.text;
  return ts.isPropertyAccessExpression(expression) ? expression.name.text : undefined;
}

/** Returns a literal's text, with `…` for each expression that names no option. */
function textOf(node: ts.Node): string | undefined {
  if (ts.isStringLiteral(node) || ts.isNoSubstitutionTemplateLiteral(node)) return node.text;
  if (!ts.isTemplateExpression(node)) return undefined;
  const filled = ({ expression }: ts.TemplateSpan): string => {
    const name = calledName(expression);
    const [first] = ts.isCallExpression(expression) ? expression.arguments : [];
    if (name === undefined || !NAMING.has(name) || first === undefined) return "…";
    return ts.isStringLiteral(first) ? `<${first.text}>` : "<option>";
  };
  return node.head.text + node.templateSpans.map((span) => filled(span) + span.literal.text).join("");
}

function* textsIn(node: ts.Node): IterableIterator<string> {
  const called = calledName(node);
  if (called !== undefined && HELP.has(called)) {
    // The rest of the call chain is searched, too; the call's own texts are help.
    const { expression } = node as ts.CallExpression;
    yield* textsIn(expression);
    return;
  }
  const text = textOf(node);
  // A flag alone is a part of a command that is assembled, and a regular expression is no message.
  if (text !== undefined && RECOMMENDS.test(text) && !/^--\S+$|\(\?/.test(text)) yield text;
  for (const child of node.getChildren()) yield* textsIn(child);
}

/** Verbs that begin a remedy. */
const VERBS =
  "add ask assign await build call cast check choose close continue convert copy create delete detach disable dispose " +
  "download drop enable export fix free freeze give hold increase inject install join keep leave lengthen load look " +
  "lower make merge mount move name open pad pass pick put quote raise reduce remove rename repeat replace reset reshape " +
  "restart resume retry return run save see set shorten specify split start stop store switch take train truncate try " +
  "turn unload unmerge unpack update upgrade use wait wrap write";
/** An imperative at the beginning of a message or of a part of it, and no noun of that form. */
const REMEDY = new RegExp(
  `(?:^|[;:,.(] (?:or |and |then |first |only |so )?|\\(|^or )(?:${VERBS.replaceAll(" ", "|")})\\b(?!:| (?:is|was|are|of|must|has|in|writes|fits)\\b)`,
);

/** Returns the text of strings, including concatenated ones; undefined if there is none. */
function joinedText(node: ts.Node): string | undefined {
  if (!ts.isBinaryExpression(node) || node.operatorToken.kind !== ts.SyntaxKind.PlusToken)
    return textOf(node);
  const [left, right] = [joinedText(node.left), joinedText(node.right)];
  return left === undefined && right === undefined ? undefined : (left ?? "…") + (right ?? "…");
}

function* remediesIn(node: ts.Node): IterableIterator<string> {
  const called = calledName(node);
  if (called !== undefined && HELP.has(called)) {
    yield* remediesIn((node as ts.CallExpression).expression);
    return;
  }
  const text = joinedText(node);
  // A single word is a value, and a regular expression is no message.
  if (text !== undefined && text.includes(" ") && REMEDY.test(text) && !text.includes("(?")) yield text;
  const isText = text !== undefined && !ts.isTemplateExpression(node);
  if (text === undefined || !isText) for (const child of node.getChildren()) yield* remediesIn(child);
}

/** Files with tables of refusals, which are checked separately. */
const REFUSALS = /(^|[\\/])refusals([\\/]|\.ts$)/;

/** Returns the texts that `find` yields for each source file. */
function collect(find: (node: ts.Node) => IterableIterator<string>): Message[] {
  const files = readdirSync(src, { recursive: true, encoding: "utf8" }).filter(
    (name) => name.endsWith(".ts") && !REFUSALS.test(name),
  );
  return files.sort().flatMap((name) => {
    const path = join(src, name);
    const file = ts.createSourceFile(path, readFileSync(path, "utf8"), ts.ScriptTarget.Latest, true);
    return [...find(file)].map((text) => ({ file: relative(src, path).replaceAll("\\", "/"), text }));
  });
}

/** Returns every message of the sources that names a command, a flag or an option. */
export function messages(): Message[] {
  return collect(textsIn);
}

/** Returns every message of the sources with an imperative remedy, such as "unmerge first", with or without names. */
export function remedies(): Message[] {
  return collect(remediesIn);
}
