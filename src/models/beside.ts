/** The small files of a model: those of its folder, or what one file that holds everything says in their place. */
import { join } from "node:path";

import { ConfigFields, parsedFields, readText } from "./config-fields.js";

/** The files that belong to a model's weights, by their names in a folder. */
export class Beside {
  constructor(
    /** What errors call the file. */
    readonly place: (name: string) => string,
    /** The file's text; undefined where there is none. Throws `ERR_FILE_FORMAT`. */
    readonly text: (name: string) => string | undefined,
  ) {}
}

/** Those of a folder. */
export function inFolder(folder: string): Beside {
  const place = (name: string): string => join(folder, name);
  return new Beside(place, (name) => readText(place(name)));
}

/** What stands for a file: its text, made when it is asked for, and what errors call it. */
export interface Made {
  place: string;
  text: () => string | undefined;
}

/** Files that are made of another one, which `where` names. */
export function madeOf(where: string, files: Readonly<Record<string, Made>>): Beside {
  return new Beside(
    (name) => files[name]?.place ?? `${where}: ${name}`,
    (name) => files[name]?.text(),
  );
}

/** A file that holds a JSON object; undefined where there is none. Throws `ERR_FILE_FORMAT`. */
export function fieldsBeside(beside: Beside, name: string): ConfigFields | undefined {
  const text = beside.text(name);
  return text === undefined ? undefined : parsedFields(beside.place(name), text);
}
