// What the test runners printed, as counts.

/** Adds up every `test result: … N passed; N failed; …` line of `cargo test`. */
export function cargoCounts(output) {
  const counts = { passed: 0, failed: 0 };
  for (const [, passed, failed] of output.matchAll(/^test result: \S+ (\d+) passed; (\d+) failed;/gm)) {
    counts.passed += Number(passed);
    counts.failed += Number(failed);
  }
  return counts;
}

/** Reads AVA's lines and its closing summary, which names the passed tests only where none failed. */
export function avaCounts(output) {
  const sum = (pattern) => [...output.matchAll(pattern)].reduce((total, [, n]) => total + Number(n), 0);
  return {
    passed: Math.max(sum(/^\s*(\d+) tests? passed\b/gm), [...output.matchAll(/^\s*[✔√] /gm)].length),
    failed: sum(/^\s*(\d+) (?:tests? failed|hooks? failed|uncaught exceptions?|unhandled rejections?)\b/gm),
  };
}

/** A suite that ended badly without naming a failure (it did not build, it crashed) or that ran nothing has failed. */
export function verdict(counts, status) {
  const silent = counts.failed === 0 && (status !== 0 || counts.passed === 0);
  return silent ? { ...counts, failed: 1 } : counts;
}
