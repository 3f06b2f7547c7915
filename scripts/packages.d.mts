interface Manifest {
  name: string;
  version: string;
  main: string;
  files: string[];
  os: string[];
  cpu: string[];
  libc?: string[];
  dependencies: Record<string, string>;
  optionalDependencies: Record<string, string>;
}
export const TARGETS: Record<string, { target: string; library: string }>;
export const MPI_BINARIES: Record<string, string>;
export function platforms(): { name: string; manifest: Manifest }[];
export function publishedManifest(): Manifest;
export function stageMain(folder: string, dist?: string): void;
export function stagePlatform(folder: string, name: string, binary: string): void;
export function stageMpi(folder: string, binaries: readonly string[]): void;
export function pack(folder: string, out: string): string;
export function publishedTarballs(folder: string): string[];
