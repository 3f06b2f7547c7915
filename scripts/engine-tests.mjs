// Helpers for scripts that run the engine's tests on other systems.

/**
 * Tests that start their own program again, which is impossible in an emulator of one process or under another loader.
 * None of them opens a GPU.
 */
export const STARTS_ITSELF = [
  "a_full_disk_keeps_the_old_file",
  "two_processes_write_at_once",
  "amx::tests::invalid_configurations_raise_a_signal",
];

/**
 * Parses the output of a test binary; a binary that did not finish has no passed tests. Only the last result counts, since
 * tests that start the binary again print results of the same form before it.
 */
export function results(text) {
  const names = [...text.matchAll(/^test (\S+) \.\.\. FAILED/gm)].map(([, name]) => name);
  const ended = [...text.matchAll(/^test result: \S+ (\d+) passed; (\d+) failed;/gm)].at(-1);
  if (ended === undefined || /^test \S+ \.\.\. /m.test(text.slice(ended.index)))
    return { passed: 0, failed: 0, names: [...names, "ended early"] };
  return { passed: Number(ended[1]), failed: Number(ended[2]), names };
}
