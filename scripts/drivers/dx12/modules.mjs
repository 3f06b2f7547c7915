// Modules of the engine's tests that launch kernels, each of which is run in a process of its own.

const MODULES = ["device::gpu::", "kernels::", "ops::", "optim::", "quant::", "tape::"];

/** Filters of tests, one for each module: two parts of a path, such as `ops::attention::`. */
export function grouped(names) {
  const groups = new Set();
  for (const name of names.filter((name) => MODULES.some((module) => name.startsWith(module)))) {
    const [first, second] = name.split("::");
    groups.add(`${first}::${second}::`);
  }
  return [...groups].toSorted();
}
