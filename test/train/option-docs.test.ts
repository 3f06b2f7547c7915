/** Editors show the documentation of each option from the package's declarations, with its default. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";
import ts from "typescript";

import { type AnyOption, isGroup } from "../../src/train/options/entry.js";
import { OPTIONS } from "../../src/train/options/table.js";

const declarations = fileURLToPath(new URL("../../dist/train/options.d.ts", import.meta.url));

/** Returns the documentation of the properties of `FinetuneOptions` and of its `optimizer`, by name. */
function documentation(): Map<string, string> {
  const program = ts.createProgram([declarations], {
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    strict: true,
    types: ["node"],
    typeRoots: [join(declarations, "../../../node_modules/@types")],
  });
  const checker = program.getTypeChecker();
  const file = program.getSourceFile(declarations) as ts.SourceFile;
  const [options] = checker
    .getExportsOfModule(checker.getSymbolAtLocation(file) as ts.Symbol)
    .filter(({ name }) => name === "FinetuneOptions");
  const found = new Map<string, string>();
  const add = (type: ts.Type, group: string): void => {
    for (const property of type.getProperties()) {
      found.set(group + property.name, ts.displayPartsToString(property.getDocumentationComment(checker)));
      if (property.name !== "optimizer") continue;
      add(checker.getNonNullableType(checker.getTypeOfSymbol(property)), "optimizer.");
    }
  };
  add(checker.getDeclaredTypeOfSymbol(options as ts.Symbol), "");
  return found;
}

test("the declarations document each option, with its default", (t) => {
  const found = documentation();
  const check = (name: string, { default: value }: Pick<AnyOption, "default">): void => {
    const text = found.get(name) ?? "";
    t.regex(text, /\w+.*\.$/s, name);
    if (typeof value === "number" || typeof value === "string") t.true(text.includes(String(value)), name);
  };
  for (const [name, entry] of Object.entries(OPTIONS)) {
    check(name, isGroup(entry) ? { default: undefined } : entry);
    if (name !== "optimizer" || !isGroup(entry)) continue;
    for (const [field, option] of Object.entries(entry.fields))
      check(`optimizer.${field}`, option as AnyOption);
  }
});
