// Parses test counts from the output of test runners.

/** Adds up every `test result: … N passed; N failed; …` line of `cargo test`. */
export function cargoCounts(output) {
  const counts = { passed: 0, failed: 0 };
  for (const [, passed, failed] of output.matchAll(/^test result: \S+ (\d+) passed; (\d+) failed;/gm)) {
    counts.passed += Number(passed);
    counts.failed += Number(failed);
  }
  return counts;
}

/** Parses AVA's lines and its summary, which contains the number of passed tests only if none failed. */
export function avaCounts(output) {
  const sum = (pattern) => [...output.matchAll(pattern)].reduce((total, [, n]) => total + Number(n), 0);
  return {
    passed: Math.max(sum(/^\s*(\d+) tests? passed\b/gm), [...output.matchAll(/^\s*[✔√] /gm)].length),
    failed: sum(/^\s*(\d+) (?:tests? failed|hooks? failed|uncaught exceptions?|unhandled rejections?)\b/gm),
  };
}

/** Counts a suite as failed if it exited with an error without naming a failure (build error, crash), or ran no tests. */
export function verdict(counts, status) {
  const silent = counts.failed === 0 && (status !== 0 || counts.passed === 0);
  return silent ? { ...counts, failed: 1 } : counts;
}
