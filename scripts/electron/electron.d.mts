/** A package that holds a copy of Electron, with the bytes that are pinned. */
interface Source {
  package: string;
  bytes: number;
  sha512: string;
}

/** Throws unless the file has the bytes that are pinned. */
export function check(path: string, source: Source): void;

/** Sets the fuses of an executable as Electron ships them. Throws if it has none, or more than are known. */
export function setFuses(executable: string): void;
