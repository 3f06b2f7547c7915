/** Formats dates as in C's default locale. */

const MONTHS = "January February March April May June July August September October November December".split(
  " ",
);
const DAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");

const pad = (value: number, digits = 2): string => String(value).padStart(digits, "0");

/** Milliseconds of a day. */
const DAY = 86_400_000;

/** Formatters of local time by the codes of Python's `strftime`; other codes stay unchanged. */
const FIELDS: Readonly<Record<string, (date: Date) => string>> = {
  a: (date) => (DAYS[date.getDay()] as string).slice(0, 3),
  A: (date) => DAYS[date.getDay()] as string,
  b: (date) => (MONTHS[date.getMonth()] as string).slice(0, 3),
  B: (date) => MONTHS[date.getMonth()] as string,
  d: (date) => pad(date.getDate()),
  H: (date) => pad(date.getHours()),
  I: (date) => pad(date.getHours() % 12 || 12),
  j: (date) =>
    pad(
      (Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - Date.UTC(date.getFullYear(), 0)) /
        DAY +
        1,
      3,
    ),
  m: (date) => pad(date.getMonth() + 1),
  M: (date) => pad(date.getMinutes()),
  p: (date) => (date.getHours() < 12 ? "AM" : "PM"),
  S: (date) => pad(date.getSeconds()),
  y: (date) => pad(date.getFullYear() % 100),
  Y: (date) => String(date.getFullYear()),
  "%": () => "%",
};

/** Formats `date`, such as by `%d %b %Y`. */
export function formatTime(date: Date, format: string): string {
  return format.replace(/%(.)/g, (all, name: string) => FIELDS[name]?.(date) ?? all);
}
