// Elements of the page, and formatting of numbers.

export const element = (id) => document.getElementById(id);
export const show = (id, text) => (element(id).textContent = text);

export function make(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

export const count = (n) => n.toLocaleString("en");
export const compact = (n) => n.toLocaleString("en", { notation: "compact", maximumSignificantDigits: 2 });
/** Three decimals below 0.1, two above. */
export const lossText = (loss) => (loss < 0.001 ? "under 0.001" : loss.toFixed(loss < 0.1 ? 3 : 2));
export const fileName = (path) => path.split(/[\\/]/).findLast((part) => part !== "");

export function duration(seconds) {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
