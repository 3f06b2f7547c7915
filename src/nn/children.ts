/** Checks of the children of module containers. */
import { refuse, checkText } from "../arguments/check.js";
import { isModule, type Module } from "./module.js";

/** Checks that `value` is a module. Throws `ERR_OPTION`. */
export function checkModule(where: string, name: string, value: unknown): Module {
  return isModule(value) ? value : refuse(where, name, "a module", value);
}

/** The index of the child called `name` among `count`. Throws `ERR_OPTION`. */
export function findIndex(where: string, name: unknown, count: number): number {
  const place = Number(checkText(where, "name", name));
  if (Number.isInteger(place) && place >= 0 && place < count) return place;
  return refuse(where, "name", `the index of one of ${count} modules`, name);
}
