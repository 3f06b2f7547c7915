// Runs the library's tests with Electron's Node.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { avaCounts } from "../counts.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Folders of test/ whose tests need only the library in one process: no installed package, commands or browsers. */
export const FOLDERS = "chat data hub inspect lora models nn optim parity runs tensor train".split(" ");

/** Runs them with Electron as Node; resolves to the numbers of passed and failed tests. */
export async function runSuite(executable) {
  const files = FOLDERS.flatMap((folder) =>
    readdirSync(join(root, "test", folder), { recursive: true })
      .filter((name) => name.endsWith(".test.ts"))
      .map((name) => join("test", folder, name)),
  );
  const args = [
    // Otherwise ava's argument parser takes this for an Electron app without a script argument.
    "--import=data:text/javascript,process.defaultApp=true",
    join("node_modules", "ava", "entrypoints", "cli.mjs"),
    ...files,
  ];
  const child = spawn(executable, args, {
    cwd: root,
    env: { ...process.env, ELECTRON_RUN_AS_NODE: "1", NODE_OPTIONS: "", NODE_NO_WARNINGS: "1" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text) => {
    output += text;
    process.stdout.write(text);
  });
  const [status] = await once(child, "close");
  return { status, ...avaCounts(output) };
}
