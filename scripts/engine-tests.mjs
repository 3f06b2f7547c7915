// What the scripts that run the engine's tests elsewhere know of them.

/**
 * Tests that start their own program again: not where an emulator runs one process's instructions, or where another
 * program (a loader of libraries) runs theirs. None opens a GPU.
 */
export const STARTS_ITSELF = [
  "a_full_disk",
  "two_processes_write_at_once",
  "amx::tests::what_is_wrong_is_refused",
];

/**
 * What a test binary wrote of its tests: none passed where it did not come to its end. Tests that start the binary again
 * write results like its own, before it.
 */
export function results(text) {
  const names = [...text.matchAll(/^test (\S+) \.\.\. FAILED/gm)].map(([, name]) => name);
  const ended = [...text.matchAll(/^test result: \S+ (\d+) passed; (\d+) failed;/gm)].at(-1);
  if (ended === undefined || /^test \S+ \.\.\. /m.test(text.slice(ended.index)))
    return { passed: 0, failed: 0, names: [...names, "ended early"] };
  return { passed: Number(ended[1]), failed: Number(ended[2]), names };
}
