/* ---- state and filters ---- */
const state = { query: "", labels: new Set(), topic: "", model: "", status: "", disagree: false, sort: "file" };
let view = items.map((_, i) => i); // indices of the items shown, in order
let terms = []; // one expression per search term
let current = { item: -1, side: 0, sentence: -1 };

const SORTS = {
  file: ["By prompt", null],
  low: ["Score, lowest first", (i) => known(i, (s) => s.score)],
  high: [
    "Score, highest first",
    (i) =>
      known(
        i,
        (s) => -s.score,
        (s) => s.score,
      ),
  ],
  wrong: ["Most wrong sentences", (i) => known(i, (s) => -s.wrong)],
  long: ["Longest first", (i) => known(i, (s) => -s.length)],
  short: ["Shortest first", (i) => known(i, (s) => s.length)],
};
if (items.some((item) => item.stats.some((s) => s && s.sure !== null)))
  SORTS.doubt = ["Most doubtful first", (i) => known(i, (s) => s.sure)];
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
  return [...query.matchAll(/"([^"]+)"|(\S+)/g)]
    .map((m) => (m[1] || m[2]).replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))
    .map((t) => new RegExp(t, "giu"));
}
function hit(expression, text) {
  return Boolean(text) && text.search(expression) >= 0; // unlike test(), this leaves lastIndex alone
}
function matchesTerm(item, term) {
  const prompt = prompts[item.p];
  if (hit(term, prompt.q) || hit(term, prompt.topic) || hit(term, item.id) || hit(term, prompt.id)) return true;
  return item.a.some(
    (side) =>
      side &&
      (hit(term, side.t) ||
        hit(term, side.m) ||
        hit(term, side.id) ||
        side.s.some((s) => hit(term, s.re) || hit(term, s.ev))),
  );
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
  if (state.status === "cut") {
    if (!item.a.some((side) => side && side.fin === "length")) return false;
  } else if (state.status && !stats.some((s) => s.status.has(state.status))) return false;
  if (state.disagree && !stats.some((s) => s.disagree)) return false;
  return terms.every((term) => matchesTerm(item, term));
}
/** Whether a sentence is what the filters ask for; the others are dimmed. */
function wanted(s) {
  if (state.labels.size && !state.labels.has(labelOf(s))) return false;
  if (state.disagree && !disagrees(s)) return false;
  return !(state.status && state.status !== "cut") || (s.st || "ok") === state.status;
}

/** The answers to one prompt together, where its first one stands, in the order of the file. */
function byPrompt(shown) {
  const groups = new Map();
  for (const i of shown) {
    const group = groups.get(items[i].p);
    if (group) group.push(i);
    else groups.set(items[i].p, [i]);
  }
  return [...groups.values()].flat();
}

function apply() {
  terms = parseQuery(state.query);
  view = [];
  items.forEach((item, i) => {
    if (passes(item)) view.push(i);
  });
  const key = SORTS[state.sort][1];
  if (key) {
    const keys = new Map(view.map((i) => [i, key(items[i])]));
    view.sort((a, b) => (keys.get(a) === keys.get(b) ? a - b : keys.get(a) < keys.get(b) ? -1 : 1));
  } else view = byPrompt(view);
  heights = new Float64Array(items.length); // a card has its heading only where it is the first of its prompt
  if (!view.includes(current.item)) current = { item: view.length ? view[0] : -1, side: 0, sentence: -1 };
  drawLegend();
  drawCards();
  drawPlots();
  $("shown").textContent =
    view.length === items.length
      ? plural(items.length, NOUN)
      : `${count(view.length)} of ${plural(items.length, NOUN)}`;
  $("clear").hidden = !filtered();
  rebuildList();
  drawInspector();
  keepInAddress();
  const top = list.getBoundingClientRect().top - barHeight();
  if (top < 0) window.scrollBy({ top: top - 16, behavior: "instant" }); // the first match, not the middle of fewer
}
const NOUN = { answers: "answer", compare: "comparison", pairs: "pair" }[kind];
const filtered = () =>
  Boolean(state.query || state.labels.size || state.topic || state.model || state.status || state.disagree);
