/* ---- axes ---- */
const WIDTH = 460,
  HEIGHT = 230,
  LEFT = 48,
  RIGHT = 12,
  TOP = 10,
  BOTTOM = 26;

/** Round numbers from low to high, about ``n`` of them. */
function ticks(low, high, n, whole = false) {
  const rough = (high - low) / n || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  if (whole) step = Math.max(1, Math.round(step));
  const out = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) out.push(k * step);
  return out;
}
function figure(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 0.001) return value.toExponential(size < 1e-99 ? 0 : 1).replace("-", "−").replace("e−", "e-");
  if (size >= 10000) return `${Number((value / 1000).toPrecision(3))}k`.replace("-", "−");
  return String(Number(value.toPrecision(3))).replace("-", "−");
}
/** From the lowest to the highest of what is drawn, with a little room. */
function span(values, zero) {
  let low = zero ? 0 : Infinity,
    high = zero ? 0 : -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return [0, 1];
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  return [zero ? 0 : low - room, high + room];
}
/** Scales and the lines behind the curves. */
function axes(xSpan, ySpan) {
  const x = (v) => LEFT + ((WIDTH - LEFT - RIGHT) * (v - xSpan[0])) / (xSpan[1] - xSpan[0] || 1);
  const y = (v) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * (v - ySpan[0])) / (ySpan[1] - ySpan[0] || 1);
  const grid = [
    ...ticks(...ySpan, 4).flatMap((v) => [
      g("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(v), y2: y(v), class: Math.abs(v) < 1e-12 ? "axis" : "grid" }),
      text(LEFT - 6, y(v) + 4, figure(Math.abs(v) < 1e-12 ? 0 : v), { "text-anchor": "end", class: "dim" }),
    ]),
    ...ticks(...xSpan, 6, true).map((v) =>
      text(x(v), HEIGHT - 8, v >= 10000 ? figure(v) : String(v), { "text-anchor": "middle", class: "dim" }),
    ),
  ];
  return { x, y, grid };
}
