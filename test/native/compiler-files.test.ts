import test from "ava";
import { join, sep } from "node:path";
import { listCompilerFiles } from "../../src/native/compiler-files.js";

const PROGRAM = join(sep, "programs", "app", "app.exe");
const BESIDE = { source: "the program", path: join(sep, "programs", "app", "dxcompiler.dll") };

test("the compiler in the package webgpu precedes the compiler next to the program", (t) => {
  const find = (request: string): string => join(sep, "modules", request);
  const path = join(sep, "modules", "webgpu", "dist", "win32-arm64", "dxcompiler.dll");
  t.deepEqual(listCompilerFiles("arm64", PROGRAM, find), [{ source: "the package webgpu", path }, BESIDE]);
});

test("without the package, the compiler next to the program is tried", (t) => {
  const find = (): string => {
    throw new Error("Cannot find module");
  };
  t.deepEqual(listCompilerFiles("x64", PROGRAM, find), [BESIDE]);
});
