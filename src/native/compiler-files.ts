/**
 * Finds DXC, the shader compiler that DX12 needs for all kernels. Windows includes only its predecessor FXC, which is
 * slower and lacks f16 and subgroups.
 */
import module from "node:module";
import { dirname, join } from "node:path";
import { resolveInPackage } from "../package/files.js";

/** A file to try, which may be missing, and the name of its source for warnings. */
export interface CompilerFile {
  source: string;
  path: string;
}

const NAME = "dxcompiler.dll";

/** An npm package that contains a DXC which signs shaders. lowrank does not depend on it. */
const PACKAGE = "webgpu";

/**
 * Returns the files to try, by priority: from the package `webgpu` if the app has installed it, then next to the
 * executable, where Electron has it since 37.10.
 */
export function listCompilerFiles(
  arch: string = process.arch,
  program: string = process.execPath,
  find: (request: string) => string = module.createRequire(resolveInPackage("package.json")).resolve,
): CompilerFile[] {
  const beside = { source: "the program", path: join(dirname(program), NAME) };
  try {
    const folder = dirname(find(`${PACKAGE}/package.json`));
    const path = join(folder, "dist", `win32-${arch}`, NAME);
    return [{ source: `the package ${PACKAGE}`, path }, beside];
  } catch {
    // The package is not installed, or this is a bundle.
    return [beside];
  }
}

/** The binding's functions for DX12's compiler, which exist only on Windows. */
interface CompilerCalls {
  lookForCompilersIn?(files: CompilerFile[]): void;
  takeCompilerWarnings?(): string[];
}

/** Passes the files to the binding. Must be called before GPUs are enumerated. */
export function lookForCompilers(binding: object): void {
  if (process.platform === "win32") (binding as CompilerCalls).lookForCompilersIn?.(listCompilerFiles());
}

/** Takes the warnings about files that do not work. Each is returned once per process. */
export function takeCompilerWarnings(binding: object): string[] {
  if (process.platform !== "win32") return [];
  return (binding as CompilerCalls).takeCompilerWarnings?.() ?? [];
}
