/** The key of an option that `lowrank/electron` sets: the priority of runs that neither set nor recorded one. */
export const DEFAULT_PRIORITY = Symbol("default priority");
