// `npm run docs`: builds a site from the pages of docs/, the examples' READMEs and the reference of all types. TypeDoc
// generates it and checks its links. Pages are grouped and sorted by the tables of docs/index.md.
import { readdirSync, readFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { Converter, ReflectionKind } from "typedoc";

const root = fileURLToPath(new URL("../..", import.meta.url));
const INDEX = join(root, "docs", "index.md");
const DESIGN = readdirSync(join(root, "docs", "design"))
  .filter((name) => name.endsWith(".md"))
  .map((name) => join("docs", "design", name));
const HOUSE = ["ARCHITECTURE.md", ...DESIGN, "CHANGELOG.md"];

/** Returns pages by group, sorted as in the index. */
function pages() {
  const found = new Map();
  let group = "Guides";
  for (const line of readFileSync(INDEX, "utf8").split("\n")) {
    if (line.startsWith("More ")) group = "More";
    if (line.startsWith("| Example")) group = "Examples";
    for (const [, to] of line.matchAll(/\]\(([^)#]+\.md)/g)) found.set(resolve(root, "docs", to), group);
  }
  for (const name of HOUSE) found.set(join(root, name), "The house");
  return found;
}

const groups = pages();

/** Titles pages by their headings; files are named by paths, which do not change with a heading. */
function named(app) {
  app.converter.on(Converter.EVENT_CREATE_DOCUMENT, (_context, document) => {
    const file = document.project.files.getReflectionPath(document);
    if (file === undefined) throw new Error(`${document.name}: no file`);
    const heading = /^# (.+)$/m.exec(readFileSync(file, "utf8"));
    if (heading === null) throw new Error(`${relative(root, file)}: no heading`);
    document.name = heading[1];
    document.frontmatter.group = groups.get(file) ?? "More";
  });
}

/** Shows interfaces that are derived from a table as if their properties were written in them. */
function derived(app) {
  app.converter.on(Converter.EVENT_RESOLVE_END, ({ project }) => {
    for (const one of project.getReflectionsByKind(ReflectionKind.Property)) {
      // The value of a table's entry is not a default.
      if (one.defaultValue === "..." && !one.parent?.kindOf(ReflectionKind.Class)) delete one.defaultValue;
      if (one.inheritedFrom?.name.startsWith("OptionsOf.")) delete one.inheritedFrom;
    }
    for (const one of project.getReflectionsByKind(ReflectionKind.Interface)) {
      if (one.extendedTypes?.some(({ name }) => ["OptionsOf", "ValuesOf"].includes(name)) !== true) continue;
      delete one.extendedTypes;
      delete one.typeHierarchy;
    }
  });
}

/** @type {Partial<import("typedoc").TypeDocOptions>} */
export default {
  name: "lowrank",
  entryPoints: [join(root, "src/index.ts"), join(root, "src/electron/index.ts")],
  tsconfig: join(root, "tsconfig.build.json"),
  // Checked by `npm run typecheck`.
  skipErrorChecking: true,
  out: join(root, "site"),
  cleanOutputDir: true,
  plugin: [named, derived],
  readme: INDEX,
  headings: { readme: false, document: false },
  projectDocuments: [...groups.keys()],
  groupOrder: ["Guides", "More", "Examples", "Modules", "The house", "*"],
  searchInDocuments: true,
  searchInComments: true,
  ignoredHighlightLanguages: ["mermaid"],
  highlightLanguages: [
    "javascript",
    "typescript",
    "json",
    "jsonl",
    "yaml",
    "jinja",
    "python",
    "shellscript",
    "html",
  ],
  navigation: { includeGroups: true },
  githubPages: false,
  excludeInternal: true,
  excludePrivate: true,
  excludeExternals: true,
  disableSources: true,
  treatWarningsAsErrors: true,
  intentionallyNotExported: ["GGUF_BLOCKS", "LOG_FORMATS", "QUANTIZATIONS", "SCHEDULES"],
  validation: {
    notExported: true,
    invalidLink: true,
    invalidPath: true,
    rewrittenLink: true,
    notDocumented: true,
  },
  requiredToBeDocumented: [
    "Class",
    "Function",
    "Interface",
    "TypeAlias",
    "Method",
    "Accessor",
    "Property",
    "Variable",
    "Constructor",
  ],
};
