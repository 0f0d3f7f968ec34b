/* ---- plots ---- */
function drawPlots() {
  const plots = [
    DATA.by_file ? plotByFile() : null,
    plotModels(),
    plotScores(),
    SIDES.length > 1 ? plotDifference() : null,
    DATA.gold ? plotCalibration() : null,
    DATA.gold ? plotMatrix() : null,
  ];
  $("plots").replaceChildren(...plots.filter(Boolean));
}

function plotModels() {
  const rows = new Map();
  for (const i of view)
    items[i].a.forEach((side, index) => {
      if (!side) return;
      const name =
        kind === "pairs"
          ? SIDES[index]
          : [SIDES[index], side.m || (kind === "compare" ? "" : "unknown")].filter(Boolean).join(": ");
      const row = rows.get(name) || { name, n: 0, labels: {} };
      for (const [label, n] of Object.entries(items[i].stats[index].labels)) {
        if (!(LABELS[label].group in GROUPS)) continue;
        row.labels[label] = (row.labels[label] || 0) + n;
        row.n += n;
      }
      rows.set(name, row);
    });
  const all = [...rows.values()].sort((a, b) => b.n - a.n);
  const kept = all.slice(0, 6);
  const height = Math.max(150, kept.length * 40 + 8);
  const body = kept.flatMap((row, y) => {
    let x = 0;
    const short = row.name.length > 42 ? `${row.name.slice(0, 41)}…` : row.name;
    const bars = Object.keys(LABELS)
      .filter((label) => row.labels[label])
      .flatMap((label) => {
        const width = (340 * row.labels[label]) / row.n;
        const bar = g(
          "rect",
          { x, y: y * 40 + 20, width: Math.max(0.5, width - 1), height: 14, class: `f-${label}` },
          g("title", {}, `${LABELS[label].name}: ${row.labels[label]} (${percent(row.labels[label], row.n)})`),
        );
        const mark =
          width > 16
            ? text(x + width / 2, y * 40 + 31, LABELS[label].mark, { class: "on-bar", "text-anchor": "middle" })
            : null;
        x += width;
        return [bar, mark];
      });
    return [
      text(0, y * 40 + 13, short, {}),
      text(340, y * 40 + 13, count(row.n), { "text-anchor": "end", class: "dim" }),
      ...bars,
    ];
  });
  const title = kind === "pairs" ? "Labels by side" : "Labels by model";
  return plot(
    title,
    all.length > kept.length ? `${kept.length} of ${all.length}` : "share of sentences",
    frame(title, 340, height, ...body),
  );
}

function plotScores() {
  const bins = SIDES.map(() => new Array(10).fill(0));
  for (const i of view)
    items[i].stats.forEach((s, side) => {
      if (s && s.score !== null) bins[side][Math.min(9, Math.floor(s.score * 10 + 1e-9))] += 1;
    });
  const top = Math.max(1, ...bins.flat());
  const width = 33 / SIDES.length;
  const bars = bins.flatMap((counts, side) =>
    counts.map((n, bin) =>
      g(
        "rect",
        {
          x: 2 + bin * 34 + side * width,
          width: Math.max(1, width - 2),
          y: 126 - (106 * n) / top,
          height: (106 * n) / top,
          rx: 1.5,
          class: `side-${side}`,
        },
        g("title", {}, `${SIDES[side] ? `${SIDES[side]}, ` : ""}${bin * 10}–${bin * 10 + 10}% right: ${count(n)}`),
      ),
    ),
  );
  const axis = [
    g("line", { x1: 0, x2: 340, y1: 126.5, y2: 126.5, class: "axis" }),
    text(0, 142, "0%", {}),
    text(170, 142, "right / all sentences", { "text-anchor": "middle" }),
    text(340, 142, "100%", { "text-anchor": "end" }),
    text(0, 10, count(top), { class: "dim" }),
  ];
  const note =
    SIDES.length > 1
      ? h("span", { class: "pair-key" }, h("i", { class: "side-0" }), SIDES[0], h("i", { class: "side-1" }), SIDES[1])
      : "answers per tenth";
  return plot("Scores", note, frame("Distribution of scores", 340, 150, ...bars, ...axis));
}

/** After minus before, or chosen minus rejected. */
function plotDifference() {
  const bins = new Array(21).fill(0); // the middle one is "no difference"
  let up = 0,
    down = 0;
  for (const i of view) {
    const difference = kind === "pairs" ? margin(items[i]) : change(items[i], 1);
    if (!Number.isFinite(difference)) continue;
    bins[Math.max(0, Math.min(20, Math.round(difference * 10) + 10))] += 1;
    up += difference > 1e-9;
    down += difference < -1e-9;
  }
  const top = Math.max(1, ...bins);
  const bars = bins.map((n, bin) =>
    g(
      "rect",
      {
        x: 4 + bin * 16,
        width: 13,
        y: 126 - (106 * n) / top,
        height: (106 * n) / top,
        rx: 1.5,
        class: bin < 10 ? "f-contradictory" : bin > 10 ? "f-no_hallucination" : "f-none",
      },
      g("title", {}, `${((bin - 10) / 10).toFixed(1)}: ${count(n)}`),
    ),
  );
  const axis = [
    g("line", { x1: 0, x2: 340, y1: 126.5, y2: 126.5, class: "axis" }),
    text(0, 142, "−1", {}),
    text(170, 142, "0", { "text-anchor": "middle" }),
    text(340, 142, "+1", { "text-anchor": "end" }),
    text(0, 10, count(top), { class: "dim" }),
  ];
  const title = kind === "pairs" ? "Margin, chosen − rejected" : "Change in score, after − before";
  return plot(title, `${count(up)} up, ${count(down)} down`, frame(title, 340, 150, ...bars, ...axis));
}

/** How often the judge is right, against how sure it said it was: by P(right) where there are scores, of the sentences
    that are right or wrong in gold; else by its confidence, of all labels. */
function plotCalibration() {
  const scored = [];
  const sure = [];
  eachShown((s) => {
    if (!s.g) return;
    const known = s.sc && rightOf(s) + wrongOf(s) > 0;
    if (known && groupOf(s.g) !== "no_fact") scored.push([rightOf(s) / (rightOf(s) + wrongOf(s)), groupOf(s.g) === "right"]);
    if (s.l && s.c !== undefined) sure.push([s.c, !disagrees(s)]);
  });
  const points = scored.length ? scored : sure;
  if (!points.length) return null;
  const n = points.length;
  const bins = binned(points);
  const error = bins.reduce((sum, bin) => sum + Math.abs(bin.hits - bin.sum), 0) / n;
  const says = (bin) =>
    scored.length
      ? `P(right) ${(bin.sum / bin.n).toFixed(2)}: right in gold ${percent(bin.hits, bin.n)} of ${bin.n}`
      : `confidence ${(bin.sum / bin.n).toFixed(2)}: agrees ${percent(bin.hits, bin.n)} of ${bin.n}`;
  const x = (v) => 34 + 300 * v;
  const y = (v) => 126 - 114 * v;
  const dots = bins.map((bin) =>
    g(
      "circle",
      { cx: x(bin.sum / bin.n), cy: y(bin.hits / bin.n), r: 3 + 9 * Math.sqrt(bin.n / n), class: "dot" },
      g("title", {}, says(bin)),
    ),
  );
  const grid = [0, 0.5, 1].flatMap((v) => [
    g("line", { x1: 34, x2: 334, y1: y(v), y2: y(v), class: "grid" }),
    text(28, y(v) + 4, `${100 * v}`, { "text-anchor": "end", class: "dim" }),
    text(x(v), 142, v ? String(v) : "0", { "text-anchor": v === 0 ? "start" : v === 1 ? "end" : "middle" }),
  ]);
  const title = scored.length ? "Reliability: right in gold, by P(right)" : "Agreement by confidence";
  return plot(
    title,
    `calibration error ${error.toFixed(3)}`,
    frame(
      title,
      340,
      150,
      ...grid,
      g("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "ideal" }),
      ...dots,
    ),
  );
}

/** Bins of about equally many points [value, hit], at least ten in each, where equal values share a bin: as `evaluate`
    has them (verdicts/figures.py). */
function binned(points) {
  const sorted = points.map(([value]) => value).sort((a, b) => a - b);
  const parts = Math.max(1, Math.min(10, Math.floor(points.length / 10)));
  const edges = new Set();
  for (let k = 1; k < parts; k++) edges.add(sorted[Math.ceil((sorted.length - 1) * (k / parts) - 1e-9)]);
  const limits = [...edges];
  const bins = new Map();
  for (const [value, hit] of points) {
    const place = limits.filter((limit) => limit <= value).length;
    const bin = bins.get(place) || { n: 0, sum: 0, hits: 0 };
    bin.n += 1;
    bin.sum += value;
    bin.hits += hit;
    bins.set(place, bin);
  }
  return [...bins.values()];
}

function plotMatrix() {
  const rows = Object.keys(GROUPS);
  const columns = ["right", "wrong", "no_fact"];
  const cells = Object.fromEntries(rows.map((row) => [row, { right: 0, wrong: 0, no_fact: 0 }]));
  let n = 0,
    agree = 0;
  eachShown((s) => {
    if (!s.g) return;
    cells[groupOf(s.l)][groupOf(s.g)] += 1;
    if (s.l) {
      n += 1;
      agree += !disagrees(s);
    }
  });
  const table = h(
    "table",
    { class: "matrix" },
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { scope: "col" }, "judge, gold →"),
        columns.map((c) => h("th", { scope: "col" }, GROUPS[c])),
      ),
    ),
    h(
      "tbody",
      {},
      rows.map((row) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, GROUPS[row]),
          columns.map((c) =>
            h(
              "td",
              { class: row === c ? "same" : cells[row][c] && row !== "none" ? "differs" : "empty" },
              count(cells[row][c]),
            ),
          ),
        ),
      ),
    ),
  );
  return plot("Judge against gold", `agrees on ${percent(agree, n)} of ${count(n)}`, table);
}
function eachShown(visit) {
  for (const i of view) for (const side of items[i].a) if (side) side.s.forEach(visit);
}
