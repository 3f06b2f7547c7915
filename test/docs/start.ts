/** The first steps of a new user: docs/start.md, followed literally in an empty folder, with the tarballs. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import test from "ava";

import { temporary } from "../hashed.js";
import { npmrc, publish } from "../published.js";
import { runPage } from "./run-page.js";

const text = readFileSync(new URL("../../docs/start.md", import.meta.url), "utf8");

test("each command of docs/start.md does and prints what the page shows", async (t) => {
  t.timeout(300_000);
  const folder = mkdtempSync(join(tmpdir(), "newcomer-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const published = await publish();
  const config = join(temporary(), "npmrc");
  writeFileSync(config, npmrc(published));
  // Commands are the system's and npm's own; only npm's configuration names the registry of the unpublished
  // packages.
  const env = { PAGE_STATE: temporary(), npm_config_userconfig: config };
  await t.notThrowsAsync(runPage("docs/start.md", text, { folder, commands: [], env }));
});
