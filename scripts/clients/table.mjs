// Formats the outcomes of calls as a table for the terminal.

/** The maximum number of characters of a passed call's outcome. */
const LONGEST = 70;

/** Formats rows `{ client, call, passed, outcome }`. */
export function formatTable(rows) {
  const cells = rows.map(({ client, call, passed, outcome }) => [
    client,
    call,
    passed ? "ok" : "FAILED",
    passed ? shorten(String(outcome)) : String(outcome),
  ]);
  const widths = [0, 1, 2].map((column) => Math.max(...cells.map((row) => row[column].length)));
  return cells
    .map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  "))
    .join("\n");
}

function shorten(text) {
  const line = text.replaceAll(/\s+/g, " ");
  return line.length > LONGEST ? `${line.slice(0, LONGEST - 1)}…` : line;
}
