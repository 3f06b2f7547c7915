// The loss curve. The line is stretched to the page's width, so its labels are separate elements of the page.
import { count, element, lossText, show } from "./elements.js";

const NS = "http://www.w3.org/2000/svg";

/** Draws the points [step, loss] of a run into an svg whose viewBox is 100 by 100. */
export function drawCurve(svg, { points, steps }) {
  const top = Math.max(...points.map(([, loss]) => loss), 0.01);
  const at = ([step, loss]) => `${((100 * step) / steps).toFixed(2)},${(100 - (97 * loss) / top).toFixed(2)}`;
  const line = document.createElementNS(NS, "polyline");
  line.setAttribute("points", points.map(at).join(" "));
  svg.replaceChildren(line);
  element("figure").hidden = points.length === 0;
  show("loss-top", lossText(top));
  show("last-step", `step ${count(steps)}`);
  const [, last = 0] = points.at(-1) ?? [];
  svg.setAttribute("aria-label", `Loss by step: from ${lossText(points[0]?.[1] ?? 0)} to ${lossText(last)}`);
}
