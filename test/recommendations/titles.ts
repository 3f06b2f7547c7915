/** The titles of the tests in a file, found in its source. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import ts from "typescript";

const root = fileURLToPath(new URL("../..", import.meta.url));

const escaped = (text: string): string => text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);

/** Returns a pattern for the titles of a literal; template expressions match any of the file's `literals`. */
function titlePattern(title: ts.Expression, literals: readonly string[]): RegExp | undefined {
  if (ts.isStringLiteralLike(title)) return new RegExp(escaped(title.text));
  if (!ts.isTemplateExpression(title)) return undefined;
  const filled = `(?:${literals.map(escaped).join("|")})`;
  const parts = title.templateSpans.map(({ literal }) => filled + escaped(literal.text));
  return new RegExp(`^${escaped(title.head.text)}${parts.join("")}$`);
}

/** Whether a call declares a test: `test(…)`, `test.serial(…)`. */
function declaresTest({ expression }: ts.CallExpression): boolean {
  const of = ts.isPropertyAccessExpression(expression) ? expression.expression : expression;
  const kind = ts.isPropertyAccessExpression(expression) ? expression.name.text : "serial";
  return ts.isIdentifier(of) && of.text === "test" && kind === "serial";
}

/** Returns the reason why `named`, such as `test/tuning.test.ts: a title`, is no test; undefined if it is one. */
export function missingTest(named: string): string | undefined {
  const [, file = "", title = ""] = /^(\S+\.test\.ts): (.+)$/s.exec(named) ?? [];
  if (title === "") return `"${named}" does not name a file and a title`;
  const path = join(root, file);
  if (!existsSync(path)) return `there is no ${file}`;
  const source = ts.createSourceFile(path, readFileSync(path, "utf8"), ts.ScriptTarget.Latest, true);
  const [literals, titles]: [string[], ts.Expression[]] = [[], []];
  const visit = (node: ts.Node): void => {
    if (ts.isStringLiteralLike(node)) literals.push(node.text);
    if (ts.isCallExpression(node) && declaresTest(node) && node.arguments[0] !== undefined)
      titles.push(node.arguments[0]);
    node.forEachChild(visit);
  };
  visit(source);
  const found = titles.some((one) => {
    // A literal title may be named by a part of it.
    if (ts.isStringLiteralLike(one)) return one.text.includes(title);
    return titlePattern(one, literals)?.test(title) ?? false;
  });
  return found ? undefined : `${file} has no test of that title: ${title}`;
}
