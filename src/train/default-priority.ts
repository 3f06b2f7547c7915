/** The key of an option of `lowrank/electron`: the priority of a run that gives none and has recorded none. */
export const DEFAULT_PRIORITY = Symbol("default priority");
