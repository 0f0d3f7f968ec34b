/** The main figures of every compared file, such as the rounds of a pipeline, with 95% intervals over topics: one small
    panel below the other, each on a scale of its own. */
function plotByFile() {
  const files = Object.keys(DATA.by_file);
  const names = Object.keys(DATA.by_file[files[0]]);
  const x = (i) => 50 + (280 * (i + 0.5)) / files.length;
  const panels = names.flatMap((name, row) => {
    const points = files.map((file) => DATA.by_file[file][name]);
    const ends = points.flatMap((p) => [p.value, p.low, p.high]).filter((v) => v !== null);
    if (!ends.length) return [];
    const low = Math.min(...ends),
      high = Math.max(...ends, low + 1e-9);
    const top = row * 96 + 20;
    const y = (v) => top + 62 * ((high - v) / (high - low));
    const known = points.map((p, i) => [p, i]).filter(([p]) => p.value !== null);
    const line = known.map(([p, i], k) => `${k ? "L" : "M"}${x(i)} ${y(p.value)}`).join("");
    const marks = known.flatMap(([p, i]) => [
      p.low === null ? null : g("line", { x1: x(i), x2: x(i), y1: y(p.low), y2: y(p.high), class: "whisker" }),
      g(
        "circle",
        { cx: x(i), cy: y(p.value), r: 4, class: "dot" },
        g("title", {}, `${files[i]}: ${short(p.value)}${p.low === null ? "" : ` [${short(p.low)}, ${short(p.high)}]`}`),
      ),
    ]);
    return [
      text(0, top - 8, name, {}),
      text(44, top + 6, short(high), { "text-anchor": "end", class: "dim" }),
      text(44, top + 64, short(low), { "text-anchor": "end", class: "dim" }),
      g("line", { x1: 50, x2: 330, y1: top + 62, y2: top + 62, class: "grid" }),
      g("path", { d: line, class: "between" }),
      ...marks,
    ];
  });
  const bottom = names.length * 96 + 8;
  const labels = files.map((file, i) => text(x(i), bottom, clip(file, 12), { "text-anchor": "middle" }));
  return plot("Figures by file", "95% intervals over topics", frame("Figures by file", 340, bottom + 8, ...panels, ...labels));
}
const short = (v) => v.toFixed(v < 10 ? 3 : 1);
