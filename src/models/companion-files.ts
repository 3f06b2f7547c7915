/** The small text files of a model (configuration, tokenizer), read from its folder or generated from a GGUF file. */
import { join } from "node:path";

import { ConfigFields, parseFields, readText } from "./config-fields.js";

/** The companion files of a model's weights, by file name. */
export class CompanionFiles {
  constructor(
    /** Returns the name of a file for error messages. */
    readonly place: (name: string) => string,
    /** Returns a file's text, or undefined where it does not exist. Throws `ERR_FILE_FORMAT`. */
    readonly text: (name: string) => string | undefined,
  ) {}
}

/** Returns the companion files in `folder`. */
export function openCompanions(folder: string): CompanionFiles {
  const place = (name: string): string => join(folder, name);
  return new CompanionFiles(place, (name) => readText(place(name)));
}

/** A generated file: its name for error messages, and a function that generates its text. */
export interface GeneratedFile {
  place: string;
  text: () => string | undefined;
}

/** Returns companion files generated from another file, which errors call `where`. */
export function generateCompanions(
  where: string,
  files: Readonly<Record<string, GeneratedFile>>,
): CompanionFiles {
  return new CompanionFiles(
    (name) => files[name]?.place ?? `${where}: ${name}`,
    (name) => files[name]?.text(),
  );
}

/** Parses a companion file as a JSON object; undefined where the file does not exist. Throws `ERR_FILE_FORMAT`. */
export function readCompanionFields(companions: CompanionFiles, name: string): ConfigFields | undefined {
  const text = companions.text(name);
  return text === undefined ? undefined : parseFields(companions.place(name), text);
}
