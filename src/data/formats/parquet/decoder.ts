/** The parts of `hyparquet`, an optional package, that decode pages. */
import { LowrankError, readSystemCode } from "../../../errors.js";

type Decoding = Pick<
  typeof import("hyparquet"),
  "parquetMetadataAsync" | "parquetSchema" | "snappyUncompress"
> &
  Pick<typeof import("hyparquet/src/column.js"), "parquetHeader"> &
  Pick<typeof import("hyparquet/src/datapage.js"), "readDataPage" | "readDataPageV2"> &
  Pick<typeof import("hyparquet/src/convert.js"), "convert" | "convertWithDictionary"> &
  Pick<typeof import("hyparquet/src/assemble.js"), "assembleLists" | "assembleNested"> &
  Pick<typeof import("hyparquet/src/plain.js"), "readPlain"> &
  Pick<typeof import("hyparquet/src/encoding.js"), "readRleBitPackedHybrid"> &
  Pick<typeof import("hyparquet/src/delta.js"), "deltaBinaryUnpack">;

export interface Decoder extends Decoding {
  DEFAULT_PARSERS: typeof import("hyparquet/src/convert.js").DEFAULT_PARSERS;
}

/** The functions in use and their arity, which guards against changes: they are internals of the package. */
const FUNCTIONS: Readonly<Record<keyof Decoding, number>> = {
  parquetMetadataAsync: 1,
  parquetSchema: 1,
  snappyUncompress: 2,
  parquetHeader: 1,
  readDataPage: 3,
  readDataPageV2: 3,
  convert: 2,
  convertWithDictionary: 4,
  assembleLists: 5,
  assembleNested: 3,
  readPlain: 4,
  readRleBitPackedHybrid: 4,
  deltaBinaryUnpack: 3,
};

const MODULES = ["column", "datapage", "convert", "assemble", "plain", "encoding", "delta"];

/** Loads `hyparquet`. Throws `ERR_OPTION` with the command that installs it, or a suitable version. */
export async function loadDecoder(file: string): Promise<Decoder> {
  const what = `${file}: Parquet`;
  const names = ["hyparquet", ...MODULES.map((name) => `hyparquet/src/${name}.js`)];
  const decoder = Object.assign(
    {},
    ...(await Promise.all(names.map((name) => importOptional(name, what)))),
  ) as Decoder;
  const changed = Object.entries(FUNCTIONS).find(([name, parameters]) => {
    const found: unknown = decoder[name as keyof Decoding];
    return typeof found !== "function" || found.length !== parameters;
  });
  if (changed === undefined) return decoder;
  const problem = `${what} needs version 1.33 of the package hyparquet, and ${changed[0]} of the installed one differs`;
  throw new LowrankError("ERR_OPTION", `${problem}; run: npm install hyparquet@1.33`);
}

/** Imports a module of an optional package. Throws `ERR_OPTION` with the command that installs it. */
export async function importOptional(name: string, what: string): Promise<object> {
  try {
    // The name is a variable, so that bundlers do not resolve it where the package is not installed.
    return (await import(/* webpackIgnore: true */ /* @vite-ignore */ name)) as object;
  } catch (cause) {
    const code = readSystemCode(cause) ?? "";
    if (!["ERR_MODULE_NOT_FOUND", "MODULE_NOT_FOUND", "ERR_PACKAGE_PATH_NOT_EXPORTED"].includes(code))
      throw cause;
    const [needed] = name.split("/");
    throw new LowrankError("ERR_OPTION", `${what} needs the package ${needed}; run: npm install ${needed}`, {
      cause,
    });
  }
}

/** Returns the error for a file that is damaged or uses unsupported features. */
export function createFileError(file: string, problem: string, cause?: unknown): LowrankError {
  const options = cause === undefined ? undefined : { cause };
  return new LowrankError(
    "ERR_FILE_FORMAT",
    `${file}: not a Parquet file that can be read: ${problem}`,
    options,
  );
}

/** Converts a failure of the decoder to such an error. */
export function convertFailure(file: string, cause: unknown): unknown {
  if (cause instanceof LowrankError) return cause;
  const message = cause instanceof Error ? cause.message : String(cause);
  return createFileError(file, message.replaceAll(/\s+/g, " "), cause);
}
