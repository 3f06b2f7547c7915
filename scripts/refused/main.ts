/** `npm run refused`: writes docs/refused.md from the code. A test checks that the page is up to date. */
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { format } from "prettier";

import { refusedPage } from "./page.js";

const page = fileURLToPath(new URL("../../docs/refused.md", import.meta.url));
writeFileSync(page, await format(refusedPage(), { filepath: page }));
