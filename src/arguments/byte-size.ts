/** Parses and formats sizes in bytes. */

const UNITS: Readonly<Record<string, number>> = { "": 1, B: 1, KB: 1e3, MB: 1e6, GB: 1e9 };

/** Parses sizes such as `2GB` or `500MB` with decimal units; undefined if `text` is not a size. */
export function parseSize(text: string): number | undefined {
  const [, digits, unit] = /^(\d+(?:\.\d+)?) ?([KMG]?B|)$/i.exec(text.trim()) ?? [];
  const size = Math.floor(Number(digits) * (UNITS[unit?.toUpperCase() ?? ""] as number));
  return Number.isSafeInteger(size) && size > 0 ? size : undefined;
}

/** Formats bytes with binary units: 512 B, 1.2 MiB, 3.4 GiB. */
export function formatSize(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  let scaled = value;
  while (scaled >= 1024 && power < units.length - 1) {
    scaled /= 1024;
    power++;
  }
  return `${power === 0 ? Math.round(scaled) : scaled.toFixed(1)} ${units[power]}`;
}
