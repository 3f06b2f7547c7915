// Formats the results as Markdown.

const HEAD = ["Part", "By", "Seen", "Seconds"];
/** The maximum number of errors to show per part. */
const TOLD = 8;

/** Whether a row has errors. */
export const failed = ({ wrong }) => wrong.length > 0;

/** Formats a table of rows `{ part, by, seen, seconds, wrong }`, followed by the errors, one line each. */
export function table(rows) {
  const cells = rows.map((row) => [
    row.part,
    row.by || "–",
    `${failed(row) ? "**wrong**: " : ""}${row.seen || "nothing"}`,
    row.seconds.toFixed(0),
  ]);
  const lines = [HEAD, HEAD.map(() => "---"), ...cells].map((line) => `| ${line.join(" | ")} |`);
  const wrong = rows.flatMap(({ part, wrong }) => {
    const more = wrong.length > TOLD ? [`and ${wrong.length - TOLD} more`] : [];
    return [...wrong.slice(0, TOLD), ...more].map((what) => `- ${part}: ${what.replaceAll(/\s+/g, " ")}`);
  });
  return [...lines, ...(wrong.length > 0 ? ["", ...wrong] : [])].join("\n");
}
