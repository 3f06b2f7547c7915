/** Public members of classes, and public exports, according to the declarations of the package. */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import ts from "typescript";

/** The members of a class: for each name whether it is public; static members have the prefix `static `. */
type Members = Map<string, boolean>;

const classes = new Map<string, Members[]>();
/** Object literals whose methods `addMethods` adds to a class, by name. */
const groups = new Map<string, Members>();
/** The groups that each class of a file has, applied once all files have been read. */
const added: (() => void)[] = [];
const internalExports = new Set<string>();

const isInternal = (node: ts.Node): boolean =>
  ts.getJSDocTags(node).some(({ tagName }) => tagName.text === "internal");

function isPublic(node: ts.ClassElement | ts.ObjectLiteralElementLike): boolean {
  const hidden = ts.ModifierFlags.Private | ts.ModifierFlags.Protected;
  return (ts.getCombinedModifierFlags(node) & hidden) === 0 && !isInternal(node);
}

function membersOf(declared: readonly (ts.ClassElement | ts.ObjectLiteralElementLike)[]): Members {
  const members: Members = new Map();
  for (const member of declared) {
    if (ts.isConstructorDeclaration(member)) {
      if (member.body !== undefined) members.set("constructor", isPublic(member));
      continue;
    }
    if (member.name === undefined || !(ts.isIdentifier(member.name) || ts.isStringLiteral(member.name)))
      continue;
    const isStatic = ts.getCombinedModifierFlags(member) & ts.ModifierFlags.Static;
    const name = `${isStatic ? "static " : ""}${member.name.text}`;
    // Either the getter or the setter may be marked.
    members.set(name, (members.get(name) ?? true) && isPublic(member));
  }
  return members;
}

/** The classes of the file that is being read. */
let inFile = new Map<string, Members>();

function visit(node: ts.Node): void {
  if (ts.isClassLike(node) && node.name !== undefined) {
    const same = classes.get(node.name.text) ?? [];
    const members = membersOf(node.members);
    classes.set(node.name.text, [...same, members]);
    inFile.set(node.name.text, members);
  }
  if (
    ts.isVariableDeclaration(node) &&
    ts.isIdentifier(node.name) &&
    node.initializer !== undefined &&
    ts.isSatisfiesExpression(node.initializer) &&
    ts.isObjectLiteralExpression(node.initializer.expression)
  )
    groups.set(node.name.text, membersOf(node.initializer.expression.properties));
  if (ts.isCallExpression(node) && node.expression.getText() === "addMethods") {
    const [Class, ...names] = node.arguments.map((argument) => argument.getText());
    const members = inFile;
    added.push(() => {
      for (const name of names)
        for (const [member, open] of groups.get(name) as Members)
          members.get(Class as string)?.set(member, open);
    });
  }
  if (ts.isFunctionDeclaration(node) && node.name !== undefined && isInternal(node))
    internalExports.add(node.name.text);
  if (ts.isVariableStatement(node) && isInternal(node))
    for (const { name } of node.declarationList.declarations)
      if (ts.isIdentifier(name)) internalExports.add(name.text);
  ts.forEachChild(node, visit);
}

const source = fileURLToPath(new URL("../../src", import.meta.url));
for (const file of readdirSync(source, { recursive: true, encoding: "utf8" })) {
  if (!file.endsWith(".ts")) continue;
  inFile = new Map();
  visit(ts.createSourceFile(file, readFileSync(`${source}/${file}`, "utf8"), ts.ScriptTarget.ES2023, true));
}
for (const add of added) add();

/** Whether an export is public. */
export function isPublicExport(name: string): boolean {
  return !internalExports.has(name);
}

/**
 * Returns the names of the methods and accessors that users may call, for the class with this `prototype`; with
 * `isStatic` the static ones.
 */
export function publicMembers(owner: { prototype: object; name: string }, isStatic = false): string[] {
  const prefix = isStatic ? "static " : "";
  const names = Object.getOwnPropertyNames(isStatic ? owner : owner.prototype).filter((name) =>
    isStatic ? !["length", "name", "prototype"].includes(name) : name !== "constructor",
  );
  // Two classes may share a name, such as `Linear` in nn and lora, so the one with all of these members is chosen.
  const declared = (classes.get(owner.name) ?? []).find((members) =>
    names.every((name) => members.has(prefix + name)),
  );
  if (declared === undefined)
    throw new Error(`no declaration of a class ${owner.name} with ${names.join(", ")}`);
  return names.filter((name) => declared.get(prefix + name));
}
