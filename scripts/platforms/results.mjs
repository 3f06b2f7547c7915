// A table of the results of Rust test binaries.

/** The results as Markdown. A row is `{ name, where }` with the result of `row`, or `{ name, where, wrong }`. */
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
