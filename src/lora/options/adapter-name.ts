/** What adapters are called. An adapter other than `default` is saved in a folder of its name. */
import { refuse } from "../../argument.js";

/** What a name should be, for errors. */
export const ADAPTER_NAME = "a name that a folder can have: without / \\ : and not . or ..";

/** Whether an adapter can be called so. */
export function isAdapterName(value: unknown): value is string {
  // eslint-disable-next-line no-control-regex
  return typeof value === "string" && /^[^/\\:\0]+$/.test(value) && value !== "." && value !== "..";
}

/** A name for an adapter. Throws `ERR_OPTION`. */
export function adapterName(where: string, name: string, value: unknown): string {
  return isAdapterName(value) ? value : refuse(where, name, ADAPTER_NAME, value);
}
