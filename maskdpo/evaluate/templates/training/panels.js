/* ---- the panels ---- */
const state = { smoothing: 0, hidden: new Set(), step: null };
let drawn = []; // {panel, lines, x, cursor, readout} of every panel that there is something to draw in

const path = (dots) => dots.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
const allSteps = () => [
  ...new Set(runs.filter((_, r) => !state.hidden.has(r)).flatMap((run) => [run.steps, run.evals || { step: [] }].flatMap((c) => c.step))),
].sort((a, b) => a - b);

function drawPanels() {
  drawn = [];
  const steps = allSteps();
  const xSpan = steps.length > 1 ? [steps[0], steps[steps.length - 1]] : [0, Math.max(1, steps[0] || 1)];
  $("curves").replaceChildren(...PANELS.map((panel) => drawPanel(panel, xSpan)).filter(Boolean));
  drawCursor();
}
function drawPanel(panel, xSpan) {
  const lines = linesOf(panel).filter((line) => !state.hidden.has(line.run));
  if (!lines.length) return null;
  for (const line of lines) {
    line.raw = points(line, line.ys);
    line.shown = line.held || !state.smoothing ? line.raw : points(line, smooth(line.ys, state.smoothing));
  }
  const ySpan = panel.range || span(lines.flatMap((line) => line.raw.map((p) => p[1])), panel.zero);
  const { x, y, grid } = axes(xSpan, ySpan);
  const at = (dots) => dots.map(([a, b]) => [x(a), y(b)]);
  const curves = lines.flatMap((line) => curve(line, at(line.raw), at(line.shown)));
  const cursor = g("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM });
  const picture = frame(summary(panel, lines), WIDTH, HEIGHT, ...grid, ...curves, cursor);
  const readout = h("ul", { class: "readout" });
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    pointAt(xSpan[0] + ((((event.clientX - box.left) * WIDTH) / box.width - LEFT) / (WIDTH - LEFT - RIGHT)) * (xSpan[1] - xSpan[0]));
  });
  drawn.push({ panel, lines, x, cursor, readout });
  return h(
    "figure",
    { class: "panel plot curve", id: `panel-${panel.id}` },
    h("figcaption", {}, panel.title, panel.note ? h("small", {}, panel.note) : null),
    picture,
    readout,
  );
}
/** Training: a line, faint under its smoothed one. Held out: rings, and squares for the second side. */
function curve(line, raw, shown) {
  const look = `r-${line.colour}${line.dashed ? " dashed" : ""}`;
  const nodes = [g("path", { d: path(shown), class: `line ${look}${line.held ? " held" : ""}` })];
  if (state.smoothing && !line.held) nodes.unshift(g("path", { d: path(raw), class: `line faint ${look}` }));
  if (line.held || raw.length < 2)
    for (const [a, b] of raw)
      nodes.push(
        line.dashed
          ? g("rect", { x: a - 3, y: b - 3, width: 6, height: 6, class: `ring ${look}` })
          : g("circle", { cx: a, cy: b, r: 3.4, class: `ring ${look}` }),
      );
  return nodes;
}
function summary(panel, lines) {
  const parts = lines
    .filter((line) => line.raw.length)
    .map((line) => {
      const [first, last] = [line.raw[0], line.raw[line.raw.length - 1]];
      return `${line.name} from ${figure(first[1])} at step ${first[0]} to ${figure(last[1])} at step ${last[0]}`;
    });
  return `${panel.title} by step: ${parts.join("; ")}`;
}

/* ---- the step that is pointed at, in all panels at once ---- */
function pointAt(step) {
  const steps = allSteps();
  const nearest = steps.reduce((a, b) => (Math.abs(b - step) < Math.abs(a - step) ? b : a), steps[0]);
  if (nearest === state.step) return;
  state.step = nearest;
  drawCursor();
}
function moveStep(by) {
  const steps = allSteps();
  const now = state.step === null ? steps.length - 1 : steps.indexOf(state.step);
  pointAt(steps[Math.max(0, Math.min(steps.length - 1, now + by))]);
}
/** Values at the step; of a line that has none there (a look is rare), the last ones before it. */
function valueAt(line, step) {
  let found = null;
  for (let i = 0; i < line.xs.length && line.xs[i] <= step; i++) if (line.ys[i] !== null) found = i;
  return found === null ? null : [line.xs[found], line.ys[found]];
}
function drawCursor() {
  const steps = allSteps();
  const step = state.step === null ? steps[steps.length - 1] : state.step;
  $("step").textContent = steps.length ? `step ${count(step)}` : "";
  for (const { lines, x, cursor, readout } of drawn) {
    cursor.style.display = state.step === null ? "none" : "";
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(step));
    readout.replaceChildren(
      ...lines.map((line) => {
        const found = valueAt(line, step);
        const when = found && found[0] !== step ? h("small", {}, ` (step ${count(found[0])})`) : null;
        return h("li", {}, key(line), h("bdi", {}, line.name), h("b", {}, figure(found && found[1])), when);
      }),
    );
  }
}
function key(line) {
  const look = `r-${line.colour}${line.dashed ? " dashed" : ""}`;
  const ring = line.dashed
    ? g("rect", { x: 9, y: 3, width: 6, height: 6, class: `ring ${look}` })
    : g("circle", { cx: 12, cy: 6, r: 3.4, class: `ring ${look}` });
  return g(
    "svg",
    { viewBox: "0 0 24 12", class: "line-key", "aria-hidden": "true" },
    g("path", { d: "M0 6L24 6", class: `line ${look}${line.held ? " held" : ""}` }),
    line.held ? ring : null,
  );
}
