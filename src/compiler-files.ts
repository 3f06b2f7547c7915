/**
 * Files that may be DXC, the shader compiler that DX12 needs for all kernels. Windows has only its predecessor, FXC,
 * which is slower and lacks f16 and subgroups.
 */
import module from "node:module";
import { dirname, join } from "node:path";
import { inPackage } from "./place.js";

/** A file, which may be missing, and where its path comes from, as warnings name it. */
export interface CompilerFile {
  source: string;
  path: string;
}

const NAME = "dxcompiler.dll";

/** A package of npm that contains a DXC which signs shaders; lowrank does not depend on it. */
const PACKAGE = "webgpu";

/**
 * Files to try, in order: that of the package `webgpu`, where the app has installed it, and the one beside the program,
 * which Electron has from 37.10 on.
 */
export function compilerFiles(
  arch: string = process.arch,
  program: string = process.execPath,
  find: (request: string) => string = module.createRequire(inPackage("package.json")).resolve,
): CompilerFile[] {
  const beside = { source: "the program", path: join(dirname(program), NAME) };
  try {
    const folder = dirname(find(`${PACKAGE}/package.json`));
    const path = join(folder, "dist", `win32-${arch}`, NAME);
    return [{ source: `the package ${PACKAGE}`, path }, beside];
  } catch {
    // Not installed, or in a bundle.
    return [beside];
  }
}

/** The calls of the binding about DX12's compiler. They matter on Windows alone. */
interface CompilerCalls {
  lookForCompilersIn?(files: CompilerFile[]): void;
  takeCompilerWarnings?(): string[];
}

/** Tells the binding which files to try. Call it before GPUs are looked for. */
export function lookForCompilers(binding: object): void {
  if (process.platform === "win32") (binding as CompilerCalls).lookForCompilersIn?.(compilerFiles());
}

/** Takes the warnings about files that do not work; each is given once in a process. */
export function compilerWarnings(binding: object): string[] {
  if (process.platform !== "win32") return [];
  return (binding as CompilerCalls).takeCompilerWarnings?.() ?? [];
}
