/** Validates adapter names. An adapter other than `default` is saved in a folder of its name. */
import { refuse } from "../../arguments/check.js";

/** Describes a valid name, for errors. */
export const ADAPTER_NAME = "a name that a folder can have: without / \\ : and not . or ..";

/** Whether `value` is a valid adapter name. */
export function isAdapterName(value: unknown): value is string {
  // eslint-disable-next-line no-control-regex
  return typeof value === "string" && /^[^/\\:\0]+$/.test(value) && value !== "." && value !== "..";
}

/** Validates an adapter name. Throws `ERR_OPTION`. */
export function checkAdapterName(where: string, name: string, value: unknown): string {
  return isAdapterName(value) ? value : refuse(where, name, ADAPTER_NAME, value);
}
