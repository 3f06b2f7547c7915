/** Checks of what is put into containers of modules. */
import { refuse, text } from "../argument.js";
import { isModule, type Module } from "./module.js";

/** `value` as a module. Throws `ERR_OPTION`. */
export function moduleOf(where: string, name: string, value: unknown): Module {
  return isModule(value) ? value : refuse(where, name, "a module", value);
}

/** The place that the child called `name` has among `count`. Throws `ERR_OPTION`. */
export function placeOf(where: string, name: unknown, count: number): number {
  const place = Number(text(where, "name", name));
  if (Number.isInteger(place) && place >= 0 && place < count) return place;
  return refuse(where, "name", `a place among ${count} modules`, name);
}
