/** Writes the package's two excerpts of Moby-Dick. Run: npx tsx models/default/pretrain/cut.ts */
import { writeFileSync } from "node:fs";

import { chapters } from "./text.js";

const here = new URL("..", import.meta.url);
writeFileSync(new URL("moby-dick.txt", here), `${chapters(1, 60)}\n`);
writeFileSync(new URL("moby-dick-held-out.txt", here), `${chapters(100, 107)}\n`);
