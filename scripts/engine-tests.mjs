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
