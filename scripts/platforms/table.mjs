// The results as Markdown.
import { TRIED } from "./attempt.mjs";

const HEAD = [
  "Platform",
  "Node",
  "Builds",
  "Package",
  "Installs",
  "Trains",
  "Saves",
  "Overwrites",
  "Stops",
  "Resumes",
];

/** Whether something in a row failed or was not reached. */
export const failed = (row) => row.unbuilt !== undefined || TRIED.some((name) => row.wrong[name] !== null);

/**
 * The table of rows, followed by the errors. A row is `{ platform, where, unbuilt, packed, unpacked }` with the result of `attempt`; `unbuilt` is the
 * reason for a missing package, and sizes are in bytes.
 */
export function table(rows) {
  const lines = [HEAD, HEAD.map(() => "---"), ...rows.map(cells)].map((line) => `| ${line.join(" | ")} |`);
  const wrong = rows.flatMap((row) => reasons(row).map((reason) => `- ${title(row)}: ${reason}`));
  return [...lines, ...(wrong.length > 0 ? ["", ...wrong] : [])].join("\n");
}

const title = ({ platform, where, node }) =>
  [platform, where, node && `Node ${node}`].filter(Boolean).join(", ");

function cells(row) {
  const built = row.unbuilt === undefined;
  const told = TRIED.map((name) => {
    const wrong = row.wrong[name];
    if (wrong === undefined) return "–";
    if (wrong !== null) return "**no**";
    return name === "install" ? `${row.seconds.toFixed(1)} s` : "yes";
  });
  const size = built ? `${megabytes(row.unpacked)} MB, ${megabytes(row.packed)} packed` : "–";
  const platform = [row.platform, row.where].filter(Boolean).join(", ");
  return [platform, row.node ?? "–", built ? "yes" : "**no**", size, ...told];
}

const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

/** A sentence for each error, on one line each. */
function reasons({ unbuilt, wrong }) {
  const told = unbuilt === undefined ? [] : [`is not built: ${unbuilt}`];
  for (const name of TRIED) if (wrong[name]) told.push(`${name}: ${wrong[name]}`);
  return told.map((reason) => reason.replaceAll(/\s+/g, " "));
}
