/** Converts Parquet values to JSON values. */
import { LowrankError } from "../../../errors.js";
import { type Origin, describeRow, createRowError } from "../../source/origin.js";

/**
 * Converts a row's fields, and counts the bytes of its texts. Null fields are dropped, since every column is nullable.
 *
 * Throws `ERR_DATA_ROW` for a value without a JSON equivalent; `ERR_FILE_FORMAT` for a text that is not UTF-8.
 */
export function convertFields(
  row: Record<string, unknown>,
  origin: Origin,
  number: number,
): { fields: Record<string, unknown>; bytes: number } {
  const fields: Record<string, unknown> = {};
  let bytes = 0;
  for (const [name, value] of Object.entries(row)) {
    if ((value ?? null) === null) continue;
    fields[name] = convertValue(value, {
      refuse: (is) => {
        throw createRowError(origin, number, `"${name}" contains ${is}, which has no JSON form`);
      },
      text: (encoded) => {
        bytes += encoded.length;
        return decodeText(
          encoded,
          () => `${describeRow(origin, number)}: "${name}" contains a text that is not UTF-8`,
        );
      },
    });
  }
  return { fields, bytes };
}

interface Converter {
  refuse(is: string): never;
  text(encoded: Uint8Array): string;
}

function convertValue(value: unknown, converter: Converter): unknown {
  if (typeof value === "bigint") {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : converter.refuse(`the number ${value}`);
  }
  if (typeof value !== "object" || value === null) return value;
  if (value instanceof Uint8Array) return converter.text(value);
  if (value instanceof Date) return value.toJSON();
  if (Array.isArray(value)) return value.map((item) => convertValue(item, converter));
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, convertValue(item, converter)]));
}

const DECODER = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Decodes strict UTF-8, as in all other formats. */
function decodeText(bytes: Uint8Array, problem: () => string): string {
  try {
    return DECODER.decode(bytes);
  } catch (cause) {
    throw new LowrankError("ERR_FILE_FORMAT", problem(), { cause });
  }
}
