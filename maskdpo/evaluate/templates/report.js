"use strict";
/* The report. Data arrives as JSON and leaves as text nodes: no markup is ever made from it (the page's policy
   forbids that too). Only the cards near the viewport exist in the DOM.

   Names in the data: item {id, p: prompt, a: sides}; side {id, t: text, s: sentences, m: model, fin, score};
   sentence {b: begin, e: end, l: label, st: status, c: confidence, ev: evidence, re: reason, k: kind, g: gold,
   tr: takes part in the loss}. Begin and end count code points. */
(() => {
const DATA = JSON.parse(document.getElementById("data").textContent);
const { items, prompts, kind } = DATA;
const SIDES = { answers: [""], compare: ["Before", "After"], pairs: ["Chosen", "Rejected"] }[kind];
const MAIN = kind === "compare" ? 1 : 0; // the side that sorting by score or length looks at
const FOLD = 2400;      // characters of an answer that are shown at first, where it is much longer
const REFERENCE = 5000; // the same for one passage of the reference

const LABELS = {
  no_hallucination: { name: "Right", group: "right", mark: "✓", says: "every claim is supported by the reference" },
  contradictory: { name: "Contradictory", group: "wrong", mark: "✕", says: "wrong: the reference says otherwise" },
  unverifiable: { name: "Unverifiable", group: "wrong", mark: "?", says: "wrong: the reference neither supports nor contradicts it" },
  hallucination: { name: "Hallucination", group: "wrong", mark: "!", says: "wrong, the source does not say in which way" },
  no_fact: { name: "No fact", group: "no_fact", mark: "–", says: "nothing to check: an opinion, a question, a transition" },
  none: { name: "Not judged", group: "none", mark: "∅", says: "there is no verdict; the status says why" },
};
const GROUPS = { right: "Right", wrong: "Wrong", no_fact: "No fact", none: "Not judged" };
const STATUS = { ok: "judged", refused: "the judge refused", parse_error: "the verdict could not be read", api_error: "the call failed", truncated: "cut off" };
const labelOf = (s) => s.l || "none";
const groupOf = (label) => LABELS[label || "none"].group;
const disagrees = (s) => Boolean(s.l && s.g && groupOf(s.l) !== groupOf(s.g));

/* ---- small helpers ---- */
const SVG = "http://www.w3.org/2000/svg";
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child); // strings become text nodes
  }
  return node;
}
const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const g = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const $ = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en");
const percent = (part, whole) => (whole ? `${(100 * part / whole).toFixed(1)}%` : "–");
const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;
const remember = { // local storage may be forbidden for local files
  get(key) { try { return localStorage.getItem(key); } catch { return null; } },
  set(key, value) { try { localStorage.setItem(key, value); } catch { /* then it is forgotten */ } },
};

/** Code point offsets to UTF-16 offsets. Where no character needs two units they are the same. */
function pointMap(text) {
  if (!/[\ud800-\udfff]/.test(text)) return { at: (i) => i, length: text.length };
  const units = [];
  let unit = 0;
  for (const character of text) { units.push(unit); unit += character.length; }
  units.push(unit);
  return { at: (i) => units[Math.min(i, units.length - 1)], length: units.length - 1 };
}

/* ---- what is known of every answer ---- */
for (const item of items) {
  item.stats = item.a.map((side) => side && statsOf(side));
}
function statsOf(side) {
  const stats = { right: 0, wrong: 0, no_fact: 0, none: 0, n: side.s.length, labels: {}, disagree: 0, trained: 0, status: new Set() };
  for (const s of side.s) {
    const label = labelOf(s);
    stats.labels[label] = (stats.labels[label] || 0) + 1;
    stats[LABELS[label].group] += 1;
    stats.disagree += disagrees(s);
    stats.trained += s.tr || 0;
    stats.status.add(s.st || "ok");
  }
  stats.score = stats.n ? stats.right / stats.n : null;
  stats.length = pointMap(side.t).length;
  return stats;
}

/* ---- state and filters ---- */
const state = { query: "", labels: new Set(), topic: "", model: "", status: "", disagree: false, sort: "file" };
let view = items.map((_, i) => i); // indices of the items shown, in order
let terms = [];                    // one expression per search term
let current = { item: -1, side: 0, sentence: -1 };

const SORTS = {
  file: ["File order", null],
  low: ["Score, lowest first", (i) => known(i, (s) => s.score)],
  high: ["Score, highest first", (i) => known(i, (s) => -s.score, (s) => s.score)],
  wrong: ["Most wrong sentences", (i) => known(i, (s) => -s.wrong)],
  long: ["Longest first", (i) => known(i, (s) => -s.length)],
  short: ["Shortest first", (i) => known(i, (s) => s.length)],
};
if (kind === "compare") {
  SORTS.loss = ["Score fell most", (i) => change(i, 1)];
  SORTS.gain = ["Score rose most", (i) => change(i, -1)];
}
if (kind === "pairs") {
  SORTS.close = ["Smallest margin", (i) => margin(i)];
  SORTS.far = ["Largest margin", (i) => -margin(i)];
}
if (DATA.gold) SORTS.disagree = ["Most disagreement with gold", (i) => known(i, (s) => -s.disagree)];

/** A sort key; an answer without sentences has no score and goes last, whatever the direction. */
function known(item, key, base = key) {
  const stats = item.stats[MAIN] || item.stats[1 - MAIN];
  return base(stats) === null ? Infinity : key(stats);
}
function change(item, sign) {
  const [a, b] = item.stats;
  return a && b && a.score !== null && b.score !== null ? sign * (b.score - a.score) : Infinity;
}
function margin(item) {
  const [c, r] = item.a;
  if (c.score !== undefined && r.score !== undefined) return c.score - r.score;
  return (item.stats[0].score || 0) - (item.stats[1].score || 0);
}

/** Words, or "exact phrases", all of which must occur; matched on the text itself, so offsets stay true. */
function parseQuery(query) {
  return [...query.matchAll(/"([^"]+)"|(\S+)/g)].map((m) => (m[1] || m[2]).replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).map((t) => new RegExp(t, "giu"));
}
function hit(expression, text) {
  return Boolean(text) && text.search(expression) >= 0; // unlike test(), this leaves lastIndex alone
}
function matchesTerm(item, term) {
  const prompt = prompts[item.p];
  if (hit(term, prompt.q) || hit(term, prompt.topic) || hit(term, item.id) || hit(term, prompt.id)) return true;
  return item.a.some((side) => side && (hit(term, side.t) || hit(term, side.m) || hit(term, side.id) ||
    side.s.some((s) => hit(term, s.re) || hit(term, s.ev))));
}
function passes(item) {
  const stats = item.stats.filter(Boolean);
  if (state.labels.size && !stats.some((s) => [...state.labels].some((label) => s.labels[label]))) return false;
  if (state.topic) {
    const topic = prompts[item.p].topic;
    const exact = topics.has(state.topic);
    if (exact ? topic !== state.topic : !topic.toLowerCase().includes(state.topic.toLowerCase())) return false;
  }
  if (state.model && !item.a.some((side) => side && (side.m || "unknown") === state.model)) return false;
  if (state.status === "cut") { if (!item.a.some((side) => side && side.fin === "length")) return false; }
  else if (state.status && !stats.some((s) => s.status.has(state.status))) return false;
  if (state.disagree && !stats.some((s) => s.disagree)) return false;
  return terms.every((term) => matchesTerm(item, term));
}
/** Whether a sentence is what the filters ask for; the others are dimmed. */
function wanted(s) {
  if (state.labels.size && !state.labels.has(labelOf(s))) return false;
  if (state.disagree && !disagrees(s)) return false;
  return !(state.status && state.status !== "cut") || (s.st || "ok") === state.status;
}

function apply() {
  terms = parseQuery(state.query);
  view = [];
  items.forEach((item, i) => { if (passes(item)) view.push(i); });
  const key = SORTS[state.sort][1];
  if (key) {
    const keys = new Map(view.map((i) => [i, key(items[i])]));
    view.sort((a, b) => (keys.get(a) === keys.get(b) ? a - b : keys.get(a) < keys.get(b) ? -1 : 1));
  }
  if (!view.includes(current.item)) current = { item: view.length ? view[0] : -1, side: 0, sentence: -1 };
  drawLegend();
  drawCards();
  drawPlots();
  $("shown").textContent = view.length === items.length ? plural(items.length, NOUN) : `${count(view.length)} of ${plural(items.length, NOUN)}`;
  $("clear").hidden = !filtered();
  rebuildList();
  drawInspector();
  keepInAddress();
  const top = list.getBoundingClientRect().top - barHeight();
  if (top < 0) window.scrollBy({ top: top - 16, behavior: "instant" }); // the first match, not the middle of fewer
}
const NOUN = kind === "pairs" ? "pair" : kind === "compare" ? "prompt" : "answer";
const filtered = () => Boolean(state.query || state.labels.size || state.topic || state.model || state.status || state.disagree);

/* ---- totals over what is shown ---- */
function totals(sideIndex) {
  const sum = { right: 0, wrong: 0, no_fact: 0, none: 0, n: 0, answers: 0, length: 0, cut: 0, trained: 0, disagree: 0, labels: {} };
  for (const i of view) {
    const stats = items[i].stats[sideIndex];
    if (!stats) continue;
    for (const name of ["right", "wrong", "no_fact", "none", "n", "length", "trained", "disagree"]) sum[name] += stats[name];
    for (const [label, n] of Object.entries(stats.labels)) sum.labels[label] = (sum.labels[label] || 0) + n;
    sum.answers += 1;
    sum.cut += items[i].a[sideIndex].fin === "length";
  }
  return sum;
}

function drawLegend() {
  const sums = SIDES.map((_, side) => totals(side));
  const chips = Object.entries(LABELS).map(([label, look]) => {
    const n = sums.reduce((total, sum) => total + (sum.labels[label] || 0), 0);
    const chip = h("button", {
      type: "button", class: `chip l-${label}`, title: `${look.says}. Click: show only answers with such a sentence`,
      "aria-pressed": String(state.labels.has(label)), "data-label": label,
      onclick: () => { state.labels.has(label) ? state.labels.delete(label) : state.labels.add(label); apply(); $("legend").querySelector(`[data-label=${label}]`).focus({ preventScroll: true }); },
    }, h("span", { class: "glyph", "aria-hidden": "true" }, look.mark), h("span", { class: "swatch" }, look.name), h("b", {}, count(n)));
    if (!n && !state.labels.has(label)) chip.classList.add("zero");
    return [look.group, chip];
  });
  const wrong = h("span", { class: "bundle", role: "group", "aria-label": "Wrong" }, h("span", { class: "bundle-name" }, "Wrong"), chips.filter(([group]) => group === "wrong").map(([, chip]) => chip));
  const of = (group) => chips.filter(([name]) => name === group).map(([, chip]) => chip);
  const training = kind !== "pairs" ? null : h("span", { class: "bundle" },
    h("span", { class: "key" }, h("i", { class: "arrow up", "aria-hidden": "true" }, "▲"), "trained: made likelier"),
    h("span", { class: "key" }, h("i", { class: "arrow down", "aria-hidden": "true" }, "▼"), "trained: made less likely"),
    h("span", { class: "key faint" }, "faded: masked, takes no part"));
  $("legend").replaceChildren(...of("right"), wrong, ...of("no_fact"), ...of("none"), ...(training ? [training] : []));
}

/* ---- summary cards ---- */
function stack(sum, tall) {
  const names = Object.keys(LABELS).filter((label) => sum.labels[label]);
  const parts = names.map((label) => {
    const part = h("i", { class: `l-${label}`, title: `${LABELS[label].name}: ${count(sum.labels[label])} (${percent(sum.labels[label], sum.n)})` },
      tall && sum.labels[label] / sum.n > 0.06 ? LABELS[label].mark : null);
    part.style.flexGrow = sum.labels[label];
    return part;
  });
  return h("div", { class: tall ? "stack tall" : "stack", role: "img", "aria-label": fourWay(sum) }, parts);
}
const fourWay = (s) => `${s.right} right, ${s.wrong} wrong, ${s.no_fact} without a fact, ${s.none} not judged`;

const both = (sums, value) => sums.map(value).join(kind === "pairs" ? " | " : " → ");
function drawCards() {
  const sums = SIDES.map((_, side) => totals(side));
  const bars = h("div", { class: "panel wide" }, h("h2", {}, "Sentences"), sums.map((sum, side) => h("div", { class: "barline" },
    SIDES[side] && h("span", { class: "side" }, SIDES[side]), stack(sum, true), h("span", { class: "total" }, count(sum.n)))));
  const tiles = Object.keys(GROUPS).map((group) => h("div", { class: `panel tile g-${group}` },
    h("h2", {}, GROUPS[group]),
    h("p", { class: "big" }, sums.map((sum, side) => [side ? h("span", { class: "arrow-to" }, kind === "pairs" ? "|" : "→") : null, h("span", {}, percent(sum[group], sum.n))])),
    h("p", { class: "small" }, h("span", {}, `${both(sums, (sum) => count(sum[group]))} in all`), h("span", {}, `${both(sums, (sum) => (sum.answers ? (sum[group] / sum.answers).toFixed(2) : "–"))} per answer`))));
  const row = (name, value) => [h("dt", {}, name), h("dd", {}, both(sums, value))];
  const facts = h("div", { class: "panel facts" }, h("h2", {}, kind === "pairs" ? "Pairs" : "Answers"), h("dl", {},
    row("shown", (s) => count(s.answers)),
    row("mean length", (s) => (s.answers ? count(Math.round(s.length / s.answers)) : "–")),
    row("sentences each", (s) => (s.answers ? (s.n / s.answers).toFixed(1) : "–")),
    row("cut off", (s) => count(s.cut)),
    kind === "pairs" ? row("trained", (s) => percent(s.trained, s.n)) : null,
    DATA.gold ? row("differ from gold", (s) => count(s.disagree)) : null));
  $("cards").replaceChildren(bars, facts, ...tiles);
}

/* ---- plots ---- */
function plot(title, note, body) {
  return h("figure", { class: "panel plot" }, h("figcaption", {}, title, note ? h("small", {}, note) : null), body);
}
const frame = (label, width, height, ...children) => g("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...children);
const text = (x, y, words, attributes) => g("text", { x, y, ...attributes }, words);

function drawPlots() {
  const plots = [plotModels(), plotScores(), SIDES.length > 1 && !DATA.gold ? plotDifference() : null, DATA.gold ? plotCalibration() : null, DATA.gold ? plotMatrix() : null];
  $("plots").replaceChildren(...plots.filter(Boolean));
}

function plotModels() {
  const rows = new Map();
  for (const i of view) items[i].a.forEach((side, index) => {
    if (!side) return;
    const name = kind === "pairs" ? SIDES[index] : [SIDES[index], side.m || (kind === "compare" ? "" : "unknown")].filter(Boolean).join(": ");
    const row = rows.get(name) || { name, n: 0, labels: {} };
    for (const [label, n] of Object.entries(items[i].stats[index].labels)) { row.labels[label] = (row.labels[label] || 0) + n; row.n += n; }
    rows.set(name, row);
  });
  const all = [...rows.values()].sort((a, b) => b.n - a.n);
  const kept = all.slice(0, 6);
  const height = Math.max(150, kept.length * 40 + 8);
  const body = kept.flatMap((row, y) => {
    let x = 0;
    const short = row.name.length > 42 ? `${row.name.slice(0, 41)}…` : row.name;
    const bars = Object.keys(LABELS).filter((label) => row.labels[label]).flatMap((label) => {
      const width = 340 * row.labels[label] / row.n;
      const bar = g("rect", { x, y: y * 40 + 20, width: Math.max(0.5, width - 1), height: 14, class: `f-${label}` }, g("title", {}, `${LABELS[label].name}: ${row.labels[label]} (${percent(row.labels[label], row.n)})`));
      const mark = width > 16 ? text(x + width / 2, y * 40 + 31, LABELS[label].mark, { class: "on-bar", "text-anchor": "middle" }) : null;
      x += width;
      return [bar, mark];
    });
    return [text(0, y * 40 + 13, short, {}), text(340, y * 40 + 13, count(row.n), { "text-anchor": "end", class: "dim" }), ...bars];
  });
  const title = kind === "pairs" ? "Labels by side" : "Labels by model";
  return plot(title, all.length > kept.length ? `${kept.length} of ${all.length}` : "share of sentences", frame(title, 340, height, ...body));
}

function plotScores() {
  const bins = SIDES.map(() => new Array(10).fill(0));
  for (const i of view) items[i].stats.forEach((s, side) => { if (s && s.score !== null) bins[side][Math.min(9, Math.floor(s.score * 10 + 1e-9))] += 1; });
  const top = Math.max(1, ...bins.flat());
  const width = 33 / SIDES.length;
  const bars = bins.flatMap((counts, side) => counts.map((n, bin) => g("rect", {
    x: 2 + bin * 34 + side * width, width: Math.max(1, width - 2), y: 126 - 106 * n / top, height: 106 * n / top, rx: 1.5, class: `side-${side}`,
  }, g("title", {}, `${SIDES[side] ? `${SIDES[side]}, ` : ""}${bin * 10}–${bin * 10 + 10}% right: ${count(n)}`))));
  const axis = [g("line", { x1: 0, x2: 340, y1: 126.5, y2: 126.5, class: "axis" }), text(0, 142, "0%", {}), text(170, 142, "right / all sentences", { "text-anchor": "middle" }), text(340, 142, "100%", { "text-anchor": "end" }), text(0, 10, count(top), { class: "dim" })];
  const note = SIDES.length > 1 ? h("span", { class: "pair-key" }, h("i", { class: "side-0" }), SIDES[0], h("i", { class: "side-1" }), SIDES[1]) : "answers per tenth";
  return plot("Scores", note, frame("Distribution of scores", 340, 150, ...bars, ...axis));
}

/** After minus before, or chosen minus rejected. */
function plotDifference() {
  const bins = new Array(21).fill(0); // the middle one is "no difference"
  let up = 0, down = 0;
  for (const i of view) {
    const difference = kind === "pairs" ? margin(items[i]) : change(items[i], 1);
    if (!Number.isFinite(difference)) continue;
    bins[Math.max(0, Math.min(20, Math.round(difference * 10) + 10))] += 1;
    up += difference > 1e-9;
    down += difference < -1e-9;
  }
  const top = Math.max(1, ...bins);
  const bars = bins.map((n, bin) => g("rect", { x: 4 + bin * 16, width: 13, y: 126 - 106 * n / top, height: 106 * n / top, rx: 1.5, class: bin < 10 ? "f-contradictory" : bin > 10 ? "f-no_hallucination" : "f-none" },
    g("title", {}, `${((bin - 10) / 10).toFixed(1)}: ${count(n)}`)));
  const axis = [g("line", { x1: 0, x2: 340, y1: 126.5, y2: 126.5, class: "axis" }), text(0, 142, "−1", {}), text(170, 142, "0", { "text-anchor": "middle" }), text(340, 142, "+1", { "text-anchor": "end" }), text(0, 10, count(top), { class: "dim" })];
  const title = kind === "pairs" ? "Margin, chosen − rejected" : "Change in score, after − before";
  return plot(title, `${count(up)} up, ${count(down)} down`, frame(title, 340, 150, ...bars, ...axis));
}

/** How often the judge agrees with gold, against how sure it said it was. */
function plotCalibration() {
  const bins = Array.from({ length: 10 }, () => ({ n: 0, agree: 0, sure: 0 }));
  eachShown((s) => {
    if (!s.l || !s.g || s.c === undefined) return;
    const bin = bins[Math.min(9, Math.floor(s.c * 10))];
    bin.n += 1; bin.sure += s.c; bin.agree += !disagrees(s);
  });
  const n = bins.reduce((sum, bin) => sum + bin.n, 0);
  if (!n) return null;
  const error = bins.reduce((sum, bin) => sum + Math.abs(bin.agree - bin.sure), 0) / n;
  const x = (v) => 34 + 300 * v;
  const y = (v) => 126 - 114 * v;
  const dots = bins.filter((bin) => bin.n).map((bin) => g("circle", { cx: x(bin.sure / bin.n), cy: y(bin.agree / bin.n), r: 3 + 9 * Math.sqrt(bin.n / n), class: "dot" },
    g("title", {}, `confidence ${(bin.sure / bin.n).toFixed(2)}: agrees ${percent(bin.agree, bin.n)} of ${bin.n}`)));
  const grid = [0, 0.5, 1].flatMap((v) => [g("line", { x1: 34, x2: 334, y1: y(v), y2: y(v), class: "grid" }), text(28, y(v) + 4, `${100 * v}`, { "text-anchor": "end", class: "dim" }), text(x(v), 142, v ? String(v) : "0", { "text-anchor": v === 0 ? "start" : v === 1 ? "end" : "middle" })]);
  return plot("Agreement by confidence", `error ${error.toFixed(3)}`, frame("Calibration", 340, 150, ...grid, g("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "ideal" }), ...dots));
}

function plotMatrix() {
  const rows = Object.keys(GROUPS);
  const columns = ["right", "wrong", "no_fact"];
  const cells = Object.fromEntries(rows.map((row) => [row, { right: 0, wrong: 0, no_fact: 0 }]));
  let n = 0, agree = 0;
  eachShown((s) => {
    if (!s.g) return;
    cells[groupOf(s.l)][groupOf(s.g)] += 1;
    if (s.l) { n += 1; agree += !disagrees(s); }
  });
  const table = h("table", { class: "matrix" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "judge ╲ gold"), columns.map((c) => h("th", { scope: "col" }, GROUPS[c])))),
    h("tbody", {}, rows.map((row) => h("tr", {}, h("th", { scope: "row" }, GROUPS[row]), columns.map((c) => h("td", { class: row === c ? "same" : cells[row][c] && row !== "none" ? "differs" : "empty" }, count(cells[row][c])))))));
  return plot("Judge against gold", `agrees on ${percent(agree, n)} of ${count(n)}`, table);
}
function eachShown(visit) {
  for (const i of view) for (const side of items[i].a) if (side) side.s.forEach(visit);
}

/* ---- search, filters, sorting ---- */
const topics = new Set(prompts.map((p) => p.topic));
function drawBar() {
  const models = [...new Set(items.flatMap((item) => item.a.map((side) => side && (side.m || "unknown"))).filter(Boolean))].sort();
  const statuses = new Set(items.flatMap((item) => item.stats.flatMap((s) => (s ? [...s.status] : []))));
  const cut = items.some((item) => item.a.some((side) => side && side.fin === "length"));
  const choose = (id, label, options) => h("label", { class: "field" }, h("span", {}, label), h("select", { id, onchange: (event) => { state[id] = event.target.value; apply(); } },
    options.map(([value, name]) => h("option", { value }, name))));
  let timer = 0;
  const typed = (name) => (event) => { clearTimeout(timer); timer = setTimeout(() => {
    if (state[name] === event.target.value.trim()) return;
    state[name] = event.target.value.trim();
    apply();
  }, items.length > 500 ? 160 : 40); };
  const fields = [
    h("label", { class: "field grow" }, h("span", {}, "Search questions, answers, reasons"), h("input", { id: "query", type: "search", placeholder: "words or \"an exact phrase\"", autocomplete: "off", spellcheck: "false", oninput: typed("query"), onchange: typed("query") })),
    topics.size > 1 ? h("label", { class: "field" }, h("span", {}, "Topic"), h("input", { id: "topic", type: "search", list: "topics", placeholder: "any", autocomplete: "off", oninput: typed("topic"), onchange: typed("topic") }), h("datalist", { id: "topics" }, [...topics].sort().map((t) => h("option", { value: t })))) : null,
    models.length > 1 && kind !== "pairs" ? choose("model", "Model", [["", "any"], ...models.map((m) => [m, m])]) : null,
    kind !== "pairs" && (statuses.size > 1 || cut) ? choose("status", "Status", [["", "any"], ...[...statuses].map((s) => [s, `${s}: ${STATUS[s]}`]), ...(cut ? [["cut", "answer cut off"]] : [])]) : null,
    choose("sort", "Sort", Object.entries(SORTS).map(([key, [name]]) => [key, name])),
    DATA.gold ? h("label", { class: "check" }, h("input", { id: "disagree", type: "checkbox", onchange: (event) => { state.disagree = event.target.checked; apply(); } }), "judge ≠ gold") : null,
    h("span", { class: "status" }, h("output", { id: "shown", "aria-live": "polite" }), h("button", { type: "button", id: "clear", class: "link", onclick: clearFilters }, "clear")),
  ];
  $("bar").replaceChildren(...fields.filter(Boolean));
  $("bar").addEventListener("submit", (event) => event.preventDefault());
}
function clearFilters() {
  Object.assign(state, { query: "", topic: "", model: "", status: "", disagree: false });
  state.labels.clear();
  for (const id of ["query", "topic", "model", "status"]) if ($(id)) $(id).value = "";
  if ($("disagree")) $("disagree").checked = false;
  apply();
}

/** The filters live in the address too, so that a view can be passed on. */
function keepInAddress() {
  const parts = new URLSearchParams();
  for (const name of ["query", "topic", "model", "status"]) if (state[name]) parts.set(name, state[name]);
  if (state.labels.size) parts.set("labels", [...state.labels].join(","));
  if (state.disagree) parts.set("disagree", "1");
  if (state.sort !== "file") parts.set("sort", state.sort);
  const hash = parts.toString();
  try { history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search); } catch { /* not allowed here */ }
}
function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  for (const name of ["query", "topic", "model", "status", "sort"]) {
    const field = $(name);
    if (!field || !parts.has(name)) continue;
    field.value = parts.get(name);
    if (field.value === parts.get(name)) state[name] = field.value; // a choice that does not exist leaves the field empty
    else field.value = state[name];
  }
  for (const label of (parts.get("labels") || "").split(",")) if (Object.hasOwn(LABELS, label)) state.labels.add(label);
  if ($("disagree")) $("disagree").checked = state.disagree = parts.has("disagree");
}

/* ---- one card ---- */
const unfolded = new Set(); // "item:side" of long answers that were opened

function marked(words) {
  if (!terms.length) return [words];
  const spans = terms.flatMap((term) => [...words.matchAll(term)].map((m) => [m.index, m.index + m[0].length])).sort((a, b) => a[0] - b[0]);
  const out = [];
  let at = 0;
  for (const [begin, end] of spans) {
    if (end <= at) continue;
    out.push(words.slice(at, Math.max(at, begin)), h("mark", {}, words.slice(Math.max(at, begin), end)));
    at = end;
  }
  return [...out, words.slice(at)];
}

function answerText(i, sideIndex) {
  const side = items[i].a[sideIndex];
  const map = pointMap(side.t);
  const key = `${i}:${sideIndex}`;
  const limit = unfolded.has(key) || map.length <= FOLD * 1.25 ? map.length : FOLD;
  const piece = (begin, end) => marked(side.t.slice(map.at(Math.min(begin, limit)), map.at(Math.min(end, limit))));
  const nodes = [];
  let at = 0;
  side.s.forEach((s, k) => {
    if (s.b >= limit) return;
    if (s.b > at) nodes.push(...piece(at, s.b));
    nodes.push(sentenceNode(s, i, sideIndex, k, piece(s.b, s.e)));
    at = s.e;
  });
  if (at < limit) nodes.push(...piece(at, limit));
  const body = h("div", { class: "text", dir: "auto" }, nodes);
  if (limit === map.length) return body;
  const rest = map.length - limit;
  return [body, h("button", { type: "button", class: "link more", onclick: () => { unfolded.add(key); redraw(i); } }, `… show ${plural(rest, "more character")}`)];
}
function sentenceNode(s, i, sideIndex, k, pieces) {
  const classes = ["s", `l-${labelOf(s)}`];
  if (s.k) classes.push(`k-${s.k}`);
  if (kind === "pairs") classes.push(s.tr ? "trained" : "masked", sideIndex ? "down" : "up");
  if (disagrees(s)) classes.push("differs");
  if (!wanted(s)) classes.push("dim");
  if (current.item === i && current.side === sideIndex && current.sentence === k) classes.push("now");
  return h("span", { class: classes.join(" "), tabindex: "0", role: "button", "data-side": sideIndex, "data-k": k }, pieces,
    s.st ? h("span", { class: "why" }, s.st.replace("_", " ")) : null);
}

function sideNode(i, sideIndex) {
  const side = items[i].a[sideIndex];
  const name = SIDES[sideIndex] ? h("b", { class: "side" }, SIDES[sideIndex]) : null;
  if (!side) return h("section", { class: "answer" }, h("header", {}, name), h("p", { class: "empty-side" }, "No answer on this side."));
  const stats = items[i].stats[sideIndex];
  const counts = Object.keys(GROUPS).map((group) => h("span", { class: `n g-${group}`, title: `${stats[group]} ${GROUPS[group].toLowerCase()}` }, { right: "✓", wrong: "✕", no_fact: "–", none: "∅" }[group], String(stats[group])));
  return h("section", { class: "answer" },
    h("header", {}, name, side.m ? h("bdi", { class: "model" }, side.m) : null,
      side.score !== undefined ? h("span", { class: "score", title: "score in the pair" }, `score ${side.score.toFixed(3)}`) : null,
      h("span", { class: "counts", role: "img", "aria-label": fourWay(stats) }, counts), stack(stats, false),
      h("span", { class: "length" }, `${count(stats.length)} chars`),
      side.fin === "length" ? h("span", { class: "cut", title: "stopped at the token limit" }, "cut off") : null),
    answerText(i, sideIndex), printing ? notes(side) : null);
}
/** On paper there is no pointing at a sentence: what was wrong is listed under the answer. */
function notes(side) {
  const map = pointMap(side.t);
  const lines = side.s.filter((s) => groupOf(s.l) === "wrong" || s.st || disagrees(s)).map((s) => h("li", {},
    h("b", {}, LABELS[labelOf(s)].name, s.st ? ` (${s.st})` : "", s.c !== undefined ? ` ${s.c.toFixed(2)}` : ""), ": ",
    h("bdi", {}, `“${side.t.slice(map.at(s.b), map.at(Math.min(s.e, s.b + 90)))}${s.e - s.b > 90 ? "…" : ""}”`),
    s.re ? [" ", h("bdi", {}, s.re)] : null, s.ev ? [" Evidence: ", h("bdi", {}, s.ev)] : null, s.g ? ` Gold: ${LABELS[s.g].name}.` : null));
  return lines.length ? h("ul", { class: "notes" }, lines) : null;
}

function cardNode(i, position) {
  const item = items[i];
  const prompt = prompts[item.p];
  const card = h("article", { class: `card${current.item === i ? " current" : ""}`, tabindex: "-1", "data-i": i, "aria-posinset": position + 1, "aria-setsize": view.length },
    h("header", { class: "question" }, h("h3", { dir: "auto" }, prompt.q ? marked(prompt.q.length > 1200 ? `${prompt.q.slice(0, 1200)}…` : prompt.q) : prompt.id),
      h("p", { class: "meta" }, h("span", { class: "number" }, `#${i + 1}`), prompt.topic !== prompt.id ? h("bdi", { class: "topic" }, prompt.topic) : null, h("bdi", {}, item.id))),
    h("div", { class: `sides n${SIDES.length}` }, SIDES.map((_, side) => sideNode(i, side))));
  return card;
}

/* ---- the list: only what is near the viewport is in the DOM ---- */
const GAP = 18, MARGIN = 700, PRINTED = 500;
const list = $("list");
const above = h("div", { class: "spacer" }), below = h("div", { class: "spacer" });
let heights = new Float64Array(items.length); // measured; 0: not yet
let offsets = new Float64Array(1);
let nodes = new Map();
let printing = false, scheduled = false, lastWidth = 0;

function guess(i) {
  const columns = SIDES.length > 1 && lastWidth > 700 ? 2 : 1;
  const perLine = Math.max(20, lastWidth / columns / 8.4);
  const lines = items[i].stats.map((s) => (s ? Math.ceil(Math.min(s.length, FOLD) / perLine) + 1 : 2));
  return 130 + 28 * (columns > 1 ? Math.max(...lines) : lines.reduce((a, b) => a + b, 0));
}
function layout() {
  offsets = new Float64Array(view.length + 1);
  for (let k = 0; k < view.length; k++) offsets[k + 1] = offsets[k] + (heights[view[k]] || guess(view[k])) + GAP;
}
function at(y) { // the position whose card covers y
  let low = 0, high = view.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (offsets[middle] <= y) low = middle; else high = middle - 1;
  }
  return low;
}
function rebuildList() {
  for (const node of nodes.values()) { watcher.unobserve(node); node.remove(); }
  nodes = new Map();
  if (!view.length) {
    list.replaceChildren(h("p", { class: "nothing" }, `No ${NOUN} passes these filters. `, h("button", { type: "button", class: "link", onclick: clearFilters }, "Clear them")));
    return;
  }
  list.replaceChildren(above, below);
  layout();
  paint();
}
/** Bring the DOM in line with the viewport. What the reader looks at stays where it is on the screen. */
function paint() {
  scheduled = false;
  if (!view.length) return;
  const eye = Math.max(0, $("bar").getBoundingClientRect().bottom);
  const anchor = [...list.querySelectorAll(".card")].find((node) => node.getBoundingClientRect().bottom > eye);
  const before = anchor ? anchor.getBoundingClientRect().top : 0;
  measure(); // a card may have grown since: its new height decides which cards are near
  for (let round = 0; round < 4; round++) if (!paintOnce()) break;
  if (anchor && anchor.isConnected) {
    const moved = anchor.getBoundingClientRect().top - before;
    if (Math.abs(moved) > 0.5) window.scrollBy(0, moved);
  }
}
function paintOnce() {
  const top = -list.getBoundingClientRect().top;
  const first = printing ? 0 : at(top - MARGIN);
  const last = printing ? Math.min(view.length, PRINTED) - 1 : at(top + window.innerHeight + MARGIN);
  const keep = new Set(view.slice(first, last + 1));
  for (const [i, node] of nodes) if (!keep.has(i)) { watcher.unobserve(node); node.remove(); nodes.delete(i); }
  let cursor = above.nextSibling;
  for (let k = first; k <= last; k++) {
    const i = view[k];
    let node = nodes.get(i);
    if (!node) { node = cardNode(i, k); nodes.set(i, node); list.insertBefore(node, cursor); watcher.observe(node); }
    else cursor = node.nextSibling;
  }
  above.style.height = `${offsets[first]}px`;
  below.style.height = `${Math.max(0, offsets[view.length] - offsets[last + 1])}px`;
  return measure();
}
function measure() {
  let changed = false;
  for (const [i, node] of nodes) {
    const height = node.getBoundingClientRect().height;
    if (height && Math.abs(height - heights[i]) > 0.5) { heights[i] = height; changed = true; }
  }
  if (changed) layout();
  return changed;
}
function schedule() {
  if (!scheduled) { scheduled = true; requestAnimationFrame(paint); }
}
const watcher = new ResizeObserver(schedule);
function redraw(i) {
  const old = nodes.get(i);
  if (!old) return;
  const node = cardNode(i, view.indexOf(i));
  watcher.unobserve(old);
  nodes.set(i, node);
  old.replaceWith(node);
  watcher.observe(node);
  schedule();
}

/* ---- what is pointed at ---- */
function select(item, side = 0, sentence = -1) {
  if (current.item === item && current.side === side && current.sentence === sentence) return;
  mark(false);
  current = { item, side, sentence };
  mark(true);
  drawInspector();
}
function mark(on) {
  const card = nodes.get(current.item);
  if (!card) return;
  card.classList.toggle("current", on);
  const node = sentenceAt(current);
  if (node) node.classList.toggle("now", on);
}
function sentenceAt({ item, side, sentence }) {
  const card = nodes.get(item);
  return card && sentence >= 0 ? card.querySelector(`.s[data-side="${side}"][data-k="${sentence}"]`) : null;
}
/** What the bar covers of the window: nothing where it scrolls away. */
const barHeight = () => (getComputedStyle($("bar")).position === "sticky" ? $("bar").offsetHeight : 0);
/** What the inspector covers where it is a sheet at the bottom. */
const sheetHeight = () => (getComputedStyle($("inspector")).position === "fixed" ? $("inspector").offsetHeight : 0);
function reveal(item) { // scroll to a card, wherever it is
  const k = view.indexOf(item);
  if (k < 0) return;
  const room = barHeight() + 14;
  for (let round = 0; round < 3; round++) { // offsets of cards never seen are guesses: look again once it is there
    window.scrollTo({ top: list.getBoundingClientRect().top + window.scrollY + offsets[k] - room, behavior: "instant" });
    paint();
  }
}
function moveCard(step) {
  if (!view.length) return;
  const k = view.indexOf(current.item);
  const fresh = !nodes.get(current.item) || !started;
  const next = fresh && step > 0 && k <= 0 ? 0 : Math.max(0, Math.min(view.length - 1, k + step));
  started = true;
  select(view[next]);
  reveal(view[next]);
  nodes.get(view[next])?.focus({ preventScroll: true });
}
let started = false;
function moveSentence(step) {
  const item = items[current.item];
  if (!item) return;
  const all = item.a.flatMap((side, index) => (side ? side.s.map((_, k) => [index, k]) : []));
  const now = all.findIndex(([side, k]) => side === current.side && k === current.sentence);
  const next = now < 0 ? (step > 0 ? 0 : all.length - 1) : now + step;
  if (all[next]) goto(current.item, ...all[next]);
}
function goto(item, side, sentence) {
  started = true;
  if (!nodes.has(item)) reveal(item);
  select(item, side, sentence);
  if (!sentenceAt(current)) { unfolded.add(`${item}:${side}`); redraw(item); } // it lies in the folded part
  const node = sentenceAt(current);
  if (!node) return;
  node.focus({ preventScroll: true });
  const box = node.getBoundingClientRect();
  const top = barHeight() + 20;
  if (box.top < top || box.bottom > window.innerHeight - sheetHeight() - 20) window.scrollBy(0, box.top - top - 60);
}
/** Keep the sentence in sight where the inspector is a sheet over the lower half of a small screen. */
function uncover() {
  const node = sentenceAt(current);
  if (!node || !sheetHeight()) return;
  const over = node.getBoundingClientRect().bottom - (window.innerHeight - sheetHeight() - 16);
  if (over > 0) window.scrollBy({ top: over, behavior: "instant" });
}
/** The next sentence that is wrong, over all answers shown. */
function moveWrong(step) {
  const start = Math.max(0, view.indexOf(current.item));
  for (let k = start; k >= 0 && k < view.length; k += step) {
    const all = items[view[k]].a.flatMap((side, index) => (side ? side.s.map((s, j) => [index, j, s]) : []));
    if (step < 0) all.reverse();
    const now = k === start ? all.findIndex(([side, j]) => side === current.side && j === current.sentence) : -1;
    if (k === start && now < 0 && step < 0) continue;
    const found = all.slice(now + 1).find(([, , s]) => groupOf(s.l) === "wrong");
    if (found) { goto(view[k], found[0], found[1]); return; }
  }
}

/* ---- the inspector: verdict and reference ---- */
let shownReference = "";
function drawInspector() {
  const box = $("inspector");
  const item = items[current.item];
  box.hidden = !item;
  if (!item) return;
  const side = item.a[current.side];
  const s = side && current.sentence >= 0 ? side.s[current.sentence] : null;
  const passages = prompts[item.p].ref;
  const found = s && s.ev ? locate(s.ev, passages) : new Map();
  box.classList.toggle("has-sentence", Boolean(s));
  $("verdict").replaceChildren(s ? verdict(s, found, passages) : hint());
  const key = `${item.p}:${s && s.ev ? s.ev : ""}`;
  if (key !== shownReference) $("reference").replaceChildren(reference(passages, found)); // else its place is kept
  shownReference = key;
  const first = box.querySelector(".passage mark");
  if (!first) return;
  const passagesBox = box.querySelector(".passages");
  const scroller = getComputedStyle(passagesBox).overflowY === "visible" ? box : passagesBox;
  if (scroller === passagesBox) scroller.scrollTop += first.getBoundingClientRect().top - scroller.getBoundingClientRect().top - scroller.clientHeight / 3;
}
const hint = () => h("p", { class: "hint" }, "Point at a sentence, or tap it, to see its verdict. ", h("kbd", {}, "j"), " ", h("kbd", {}, "k"), " move between answers, ", h("kbd", {}, "→"), " between sentences.");
function verdict(s, found, passages) {
  const look = LABELS[labelOf(s)];
  const where = [...found.keys()].map((p) => p + 1);
  const gold = s.g ? h("p", { class: `gold${disagrees(s) ? " differs" : ""}` }, disagrees(s) ? "≠ " : "= ", "gold says ", h("b", {}, LABELS[s.g].name.toLowerCase())) : null;
  return h("div", { class: "verdict" },
    h("p", { class: "head" }, h("span", { class: `tag l-${labelOf(s)}` }, h("span", { class: "glyph" }, look.mark), look.name),
      s.k ? h("span", { class: "kind" }, s.k.replace("_", " ")) : null,
      s.c !== undefined ? h("span", { class: "confidence" }, meter(s.c), `confidence ${s.c.toFixed(2)}`) : null),
    s.st ? h("p", { class: "why-line" }, `Status ${s.st}: ${STATUS[s.st]}.`) : h("p", { class: "says" }, `${look.says[0].toUpperCase()}${look.says.slice(1)}.`),
    kind === "pairs" ? h("p", { class: "train-line" }, s.tr ? (current.side ? "▼ Takes part in the loss: made less likely." : "▲ Takes part in the loss: made likelier.") : "Masked: takes no part in the loss.") : null,
    gold, s.re ? [h("h4", {}, "Reason"), h("p", { dir: "auto", class: "reason" }, clip(s.re, 4000))] : null,
    s.ev ? [h("h4", {}, "Evidence"), h("blockquote", { dir: "auto" }, clip(s.ev, 4000)), passages.length ? h("p", { class: "where" }, where.length ? `in passage ${where.join(", ")}` : "not found word for word in the reference") : null] : null);
}
const clip = (words, limit) => (words.length > limit ? `${words.slice(0, limit)}…` : words);
function meter(value) {
  const bar = h("i", {});
  bar.style.width = `${100 * value}%`;
  return h("span", { class: "meter", "aria-hidden": "true" }, bar);
}

/** Where the evidence stands in the passages: case, white space and quotation marks do not count, "..." joins parts. */
function locate(evidence, passages) {
  const plain = (words) => {
    let out = "";
    const from = [];
    for (let i = 0; i < words.length; i++) {
      let c = words[i];
      if (/\s/.test(c)) { if (!out || out.endsWith(" ")) continue; c = " "; }
      else if (/["'“”‘’«»`]/.test(c)) c = "'";
      else if (/[‐-―−]/.test(c)) c = "-";
      else { const low = c.toLowerCase(); if (low.length === 1) c = low; }
      out += c;
      from.push(i);
    }
    return { out, from };
  };
  const parts = evidence.slice(0, 4000).split(/\.{3}|…/).map((part) => plain(part).out.replace(/^[\s'.]+|[\s'.]+$/g, "")).filter((part) => part.length > 2);
  const found = new Map();
  if (!parts.length) return found;
  passages.forEach((passage, p) => {
    const { out, from } = plain(passage);
    const spans = parts.map((part) => [out.indexOf(part), part.length]).filter(([start]) => start >= 0).map(([start, length]) => [from[start], from[start + length - 1] + 1]);
    if (spans.length) found.set(p, spans.sort((a, b) => a[0] - b[0]));
  });
  return found;
}
function reference(passages, found) {
  if (!passages.length) return h("div", { class: "reference-body" }, h("h4", {}, "Reference"), h("p", { class: "hint" }, "None is given."));
  return h("div", { class: "reference-body" }, h("h4", {}, "Reference", passages.length > 1 ? h("small", {}, ` ${plural(passages.length, "passage")}`) : null),
    h("ol", { class: "passages", tabindex: "0" }, passages.map((passage, p) => h("li", { class: `passage${found.has(p) ? " has-evidence" : ""}`, dir: "auto" }, excerpt(passage, found.get(p) || [])))));
}
function excerpt(passage, spans) {
  const low = passage.length <= REFERENCE || !spans.length ? 0 : Math.max(0, spans[0][0] - REFERENCE / 3);
  const high = Math.min(passage.length, low + REFERENCE);
  const out = [low ? "… " : ""];
  let at = low;
  for (const [begin, end] of spans) {
    if (begin < at || begin >= high) continue;
    out.push(passage.slice(at, begin), h("mark", {}, passage.slice(begin, end)));
    at = end;
  }
  out.push(passage.slice(at, Math.max(at, high)));
  if (low || high < passage.length) {
    out.push(" … ", h("button", { type: "button", class: "link", onclick: (event) => event.target.parentNode.replaceChildren(passage) }, `whole passage (${count(passage.length)} characters)`));
  }
  return out;
}

/* ---- keyboard, pointer, theme ---- */
const KEYS = {
  j: ["next answer", () => moveCard(1)], k: ["answer before", () => moveCard(-1)],
  ArrowDown: [null, () => moveCard(1), true], ArrowUp: [null, () => moveCard(-1), true],
  ArrowRight: ["next sentence", () => moveSentence(1)], ArrowLeft: ["sentence before", () => moveSentence(-1)],
  n: ["next wrong sentence", () => moveWrong(1)], N: ["wrong sentence before", () => moveWrong(-1)],
  "/": ["search", () => { $("query").focus(); $("query").select(); }],
  x: ["clear the filters", clearFilters], t: ["light or dark", () => toggleTheme()],
  "?": ["this help", () => $("keys").showModal()],
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const field = event.target.closest?.("input, select, textarea, dialog");
  if (event.key === "Escape") {
    if (field && field.matches("input")) field.blur();
    else if (!field) select(current.item);
    return;
  }
  const action = KEYS[event.key];
  if (field || !action) return;
  if (action[2] && !event.target.closest(".list")) return; // arrows scroll the page until the list has the focus
  event.preventDefault();
  action[1]();
});
const place = (target) => {
  const card = target.closest?.(".card");
  if (!card) return null;
  const s = target.closest(".s");
  return [Number(card.dataset.i), s ? Number(s.dataset.side) : 0, s ? Number(s.dataset.k) : -1];
};
let hover = 0, pointer = "";
list.addEventListener("pointermove", (event) => { // scrolling under a resting pointer is no pointing
  const where = `${event.screenX}:${event.screenY}`;
  if (event.pointerType === "touch" || where === pointer) return;
  pointer = where;
  clearTimeout(hover);
  const to = place(event.target);
  if (to && to[2] >= 0) hover = setTimeout(() => select(...to), 70);
});
list.addEventListener("pointerleave", () => clearTimeout(hover));
list.addEventListener("click", (event) => {
  const to = place(event.target);
  if (to && !event.target.closest("button:not(.s)") && getSelection().isCollapsed) { started = true; select(...to); uncover(); }
});
list.addEventListener("focusin", (event) => { const to = place(event.target); if (to && to[2] >= 0) select(...to); });
list.addEventListener("keydown", (event) => {
  if ((event.key === "Enter" || event.key === " ") && event.target.matches(".s")) { event.preventDefault(); select(...place(event.target)); drawInspector(); }
});

function dark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}
function toggleTheme() {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
  remember.set("maskdpo-theme", document.documentElement.dataset.theme);
  themeIcon();
}
function themeIcon() { $("theme").textContent = dark() ? "☀" : "☾"; }

function start() {
  const theme = remember.get("maskdpo-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  themeIcon();
  $("theme").addEventListener("click", toggleTheme);
  const names = { ArrowRight: "→", ArrowLeft: "←" };
  $("keys").replaceChildren(h("h2", {}, "Keyboard"), h("dl", {}, Object.entries(KEYS).filter(([, [what]]) => what).map(([key, [what]]) => [h("dt", {}, h("kbd", {}, names[key] || key)), h("dd", {}, what)]), h("dt", {}, h("kbd", {}, "Esc")), h("dd", {}, "close, leave the search")), h("form", { method: "dialog" }, h("button", { class: "plain" }, "Close")));
  $("help").addEventListener("click", () => $("keys").showModal());
  const judged = DATA.judges.length ? `Judged by ${DATA.judges.slice(0, 3).join("; ")}${DATA.judges.length > 3 ? " and others" : ""}` : kind === "pairs" ? "Preference pairs, masked sentence by sentence" : "Labels without a judge on record";
  $("sub").append(h("bdi", {}, judged));
  $("inspector").append(h("button", { type: "button", class: "icon close", "aria-label": "Close", onclick: () => select(current.item) }, "✕"), h("div", { id: "verdict", "aria-live": "polite" }), h("div", { id: "reference" }));
  drawBar();
  readAddress();
  lastWidth = list.clientWidth;
  apply();
  window.addEventListener("scroll", schedule, { passive: true });
  new ResizeObserver(() => {
    if (Math.abs(list.clientWidth - lastWidth) > 1) { lastWidth = list.clientWidth; heights = new Float64Array(items.length); layout(); }
    schedule();
  }).observe(list);
  window.addEventListener("beforeprint", () => { printing = true; rebuildList(); });
  window.addEventListener("afterprint", () => { printing = false; rebuildList(); });
  document.documentElement.dataset.ready = "yes";
}
start();
})();
