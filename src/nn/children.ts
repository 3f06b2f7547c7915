/** Checks of what is put into containers of modules. */
import { refuse } from "../argument.js";
import { Module } from "./module.js";

/** `value` as a module. Throws `ERR_OPTION`. */
export function moduleOf(where: string, name: string, value: unknown): Module {
  return value instanceof Module ? value : refuse(where, name, "a module", value);
}
