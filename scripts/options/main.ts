/**
 * `npm run options`: writes docs/options.md from the table of options. With the name of a file, as in the build, writes
 * the schema of config files into it instead.
 */
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { format } from "prettier";

import { optionsPage } from "./page.js";
import { configSchema } from "./schema.js";

const [schema] = process.argv.slice(2);
if (schema === undefined) {
  const page = fileURLToPath(new URL("../../docs/options.md", import.meta.url));
  writeFileSync(page, await format(optionsPage(), { filepath: page }));
} else {
  writeFileSync(schema, `${JSON.stringify(configSchema(), undefined, 2)}\n`);
}
