/** A package with a copy of Electron, and its pinned hash. */
interface Source {
  package: string;
  bytes: number;
  sha512: string;
}

/** Throws unless the file has the pinned hash. */
export function check(path: string, source: Source): void;

/** Sets the fuses of an executable to Electron's defaults. Throws if it has no fuses, or unknown ones. */
export function setFuses(executable: string): void;
