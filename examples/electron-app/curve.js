// The loss by step, drawn into an svg.
const NS = "http://www.w3.org/2000/svg";
const [LEFT, RIGHT, TOP, BOTTOM] = [44, 592, 10, 156];

function drawn(name, attributes, text = "") {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

/** Draws points [step, loss] of a run of so many steps. */
export function drawCurve(svg, points, steps) {
  const losses = points.map(([, loss]) => loss);
  const [low, high] = [Math.min(0, ...losses), Math.max(...losses, 0.01)];
  const x = (step) => LEFT + ((RIGHT - LEFT) * step) / Math.max(steps, 1);
  const y = (loss) => BOTTOM - ((BOTTOM - TOP) * (loss - low)) / (high - low);
  const lines = [low, (low + high) / 2, high].flatMap((loss) => [
    drawn("line", { x1: LEFT, x2: RIGHT, y1: y(loss), y2: y(loss) }),
    drawn("text", { x: LEFT - 6, y: y(loss) + 4, "text-anchor": "end" }, loss.toFixed(2)),
  ]);
  const path = points.map(
    ([step, loss], i) => `${i === 0 ? "M" : "L"}${x(step).toFixed(1)} ${y(loss).toFixed(1)}`,
  );
  svg.replaceChildren(
    ...lines,
    drawn("path", { d: path.join("") || `M${LEFT} ${BOTTOM}` }),
    drawn("text", { x: RIGHT, y: BOTTOM + 18, "text-anchor": "end" }, `step ${steps}`),
  );
}
