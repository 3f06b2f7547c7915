/** Binaries that must not be published. */
import { chmodSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";

import test from "ava";

import { checkBinary, needed } from "../../scripts/check-binary.mjs";
import { temporary } from "../hashed.js";

test("a binary that is too large or missing is not published", (t) => {
  t.throws(() => checkBinary("linux-x64-gnu", process.execPath), {
    message: /takes \d+ bytes, and may take/,
  });
  t.throws(() => checkBinary("win32-x64-msvc", join(temporary(), "none")), { message: /has not been built/ });
});

if (process.platform === "linux") {
  test.serial(
    "a binary that needs a newer glibc is not published, nor one for musl that needs glibc",
    (t) => {
      // The system's own shell, which is linked against the system's glibc.
      const { versions, libraries } = needed("/bin/sh");
      t.true(versions.length > 0 && libraries.length > 0);
      t.throws(() => checkBinary("linux-x64-gnu", "/bin/sh"), {
        message: /needs glibc 2\.\d+.*, and may need 2\.17$/,
      });
    },
  );

  test.serial("libraries that a system may lack are named, for every platform", (t) => {
    const folder = temporary();
    const binary = join(folder, "binary");
    writeFileSync(binary, "");
    const path = process.env["PATH"];
    t.teardown(() => (process.env["PATH"] = path));
    process.env["PATH"] = `${folder}${delimiter}${path}`;
    /** Emulates objdump's output for a binary that needs these libraries. */
    const check = (name: string, lines: readonly string[]): void => {
      writeFileSync(join(folder, "objdump"), `#!/bin/sh\ncat <<'END'\n${lines.join("\n")}\nEND\n`);
      chmodSync(join(folder, "objdump"), 0o755);
      checkBinary(name, binary);
    };
    const windows = (...dlls: string[]): string[] => dlls.map((dll) => `\tDLL Name: ${dll}`);
    const linux = (...libraries: string[]): string[] =>
      libraries.map((library) => `  NEEDED       ${library}`);

    t.notThrows(() => check("win32-x64-msvc", windows("KERNEL32.dll", "api-ms-win-core-synch-l1-2-0.dll")));
    for (const dll of ["libgcc_s_seh-1.dll", "libwinpthread-1.dll", "VCRUNTIME140.dll", "libnode.dll"])
      t.throws(() => check("win32-x64-msvc", windows("KERNEL32.dll", dll)), {
        message: `win32-x64-msvc: ${binary} needs ${dll}, which systems may not have`,
      });
    t.notThrows(() => check("linux-x64-musl", linux("libc.so")));
    for (const library of ["libc.so.6", "libgcc_s.so.1"])
      t.throws(() => check("linux-x64-musl", linux("libc.so", library)), {
        message: /which systems may not have/,
      });
    t.notThrows(() => check("linux-arm64-gnu", linux("libc.so.6", "ld-linux-aarch64.so.1")));
    t.throws(() => check("linux-arm64-gnu", linux("libc.so.6", "libgcc_s.so.1")), {
      message: /needs libgcc_s\.so\.1, which/,
    });
    t.throws(() => check("win32-x64-msvc", ["file format pei-x86-64"]), { message: /reports no library/ });
    t.notThrows(() => check("darwin-arm64", []));
  });
}
