/** Formats numbers for people. */

/** Formats a number with five significant digits, or in scientific notation if it is very large or small. */
export function formatFigure(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e6 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(5)));
}

export function formatBytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = value < 1 ? 0 : Math.min(Math.floor(Math.log2(value) / 10), units.length - 1);
  return `${Number((value / 1024 ** power).toPrecision(4))} ${units[power]}`;
}

/** Formats seconds as 9 s, 2 m 05 s, 3 h 04 m. */
export function formatDuration(seconds: number): string {
  const total = Math.max(0, Math.round(seconds));
  const padTwo = (value: number): string => String(value).padStart(2, "0");
  if (total < 60) return `${total} s`;
  if (total < 3600) return `${Math.floor(total / 60)} m ${padTwo(total % 60)} s`;
  return `${Math.floor(total / 3600)} h ${padTwo(Math.floor((total % 3600) / 60))} m`;
}
