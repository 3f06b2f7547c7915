/**
 * Adds methods and accessors to a class whose methods are grouped in several files. Each group is an object literal; an
 * interface of the class's name, which extends the types of the groups, declares them.
 */
export function addMethods(Class: { prototype: object }, ...groups: readonly object[]): void {
  for (const group of groups) {
    for (const [name, descriptor] of Object.entries(Object.getOwnPropertyDescriptors(group)))
      Object.defineProperty(Class.prototype, name, { ...descriptor, enumerable: false });
  }
}
