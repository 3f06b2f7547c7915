// Groups the engine's tests that launch kernels into modules; each module runs in a separate process.

const MODULES = ["device::gpu::", "kernels::", "ops::", "optim::", "tape::"];

/** Returns one test filter per module: two parts of a path, such as `ops::attention::`. */
export function grouped(names) {
  const groups = new Set();
  for (const name of names.filter((name) => MODULES.some((module) => name.startsWith(module)))) {
    const [first, second] = name.split("::");
    groups.add(`${first}::${second}::`);
  }
  return [...groups].toSorted();
}
