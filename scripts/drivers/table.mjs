// What was seen, as Markdown.

const HEAD = ["Part", "By", "Seen", "Seconds"];
/** Sentences that are shown of a part. */
const TOLD = 8;

/** Whether a row has something that is wrong. */
export const failed = ({ wrong }) => wrong.length > 0;

/** The table of rows `{ part, by, seen, seconds, wrong }`, and below it what went wrong, a line each. */
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
