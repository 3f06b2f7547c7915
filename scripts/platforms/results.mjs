// What test binaries of Rust tell, and a table of it.

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

/** What was seen, as Markdown. A row is `{ name, where }` and what `row` gave, or `{ name, where, wrong }`. */
export function suitesTable(rows) {
  const minutes = (seconds) => (seconds === undefined ? "–" : `${(seconds / 60).toFixed(1)} min`);
  const lines = rows.map(({ name, where, passed, failed, built, seconds, without, wrong }) => {
    const of = passed === undefined ? "–" : `${passed} of ${passed + failed}`;
    const left = without?.length > 0 ? `, without ${without.join(", ")}` : "";
    return [name, where, wrong.length === 0 ? "yes" : "**no**", of + left, minutes(built), minutes(seconds)];
  });
  const head = ["What", "Where", "Well", "Tests", "Builds in", "Runs in"];
  const reasons = rows.flatMap(({ name, wrong }) => wrong.map((reason) => `- ${name}: ${reason}`));
  const told = [head, head.map(() => "---"), ...lines].map((line) => `| ${line.join(" | ")} |`);
  return [...told, ...(reasons.length > 0 ? ["", ...reasons] : [])].join("\n");
}
