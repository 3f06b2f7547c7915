/** `npm run refused`: writes docs/refused.md. A test holds what is written to what the code says. */
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { format } from "prettier";

import { refusedPage } from "./page.js";

const page = fileURLToPath(new URL("../../docs/refused.md", import.meta.url));
writeFileSync(page, await format(refusedPage(), { filepath: page }));
