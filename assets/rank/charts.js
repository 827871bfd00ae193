// Small drawings for figures, as SVG: a figure with its interval on a scale, bars beside what chance would make, a curve.
//
// Each has a text beside it that says the same, so they are hidden from screen readers.

const SVG = "http://www.w3.org/2000/svg";

function s(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function drawing(width, height, ...children) {
  return s("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", "aria-hidden": "true", preserveAspectRatio: "none" }, ...children.flat());
}

const line = (x1, y1, x2, y2, kind) => s("line", { x1, y1, x2, y2, class: kind });

/** A figure and its interval on a scale from `low` to `high`; `mark` is where chance would be. */
export function interval({ value, ci95 }, low, high, mark) {
  const x = (v) => 4 + (192 * (Math.min(high, Math.max(low, v)) - low)) / (high - low);
  const range = ci95 ? [line(x(ci95[0]), 10, x(ci95[1]), 10, "range")] : [];
  return drawing(200, 20, line(4, 10, 196, 10, "axis"), line(x(mark), 3, x(mark), 17, "chance"), range,
    s("rect", { x: x(value) - 2.5, y: 4, width: 5, height: 12, rx: 2, class: "value" }));
}

/** Bars of `[share, chance]`. */
export function bars(pairs) {
  const most = Math.max(...pairs.flat(), 0.01);
  const width = 200 / pairs.length;
  const y = (share) => 60 - (54 * share) / most;
  const bar = ([share, chance], i) => [
    s("rect", { x: i * width + width * 0.15, y: y(share), width: width * 0.7, height: 60 - y(share), class: "bar" }),
    line(i * width + width * 0.05, y(chance), (i + 0.95) * width, y(chance), "chance"),
  ];
  return drawing(200, 60, pairs.map(bar).flat());
}

/** A curve through `[x, share]`. */
export function curve(points) {
  const right = Math.max(...points.map(([x]) => x), 1);
  const shares = points.map(([, share]) => share);
  const [low, high] = [Math.min(...shares, 0.5) - 0.02, Math.max(...shares, 0.6) + 0.02];
  const at = ([x, share]) => [4 + (192 * x) / right, 76 - (72 * (share - low)) / (high - low)];
  const places = points.map(at);
  const [, half] = at([0, 0.5]);
  return drawing(200, 80, line(4, half, 196, half, "chance"),
    s("polyline", { points: places.map((place) => place.join(",")).join(" "), class: "curve" }),
    places.map(([x, y]) => line(x, y, x, y, "dot")));
}
