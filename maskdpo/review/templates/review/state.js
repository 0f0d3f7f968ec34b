/* The page of a review. The files of this folder run as one function after those of ../page, in the order that
   server.py names.

   item: a sentence of the queue, [number of its answer, begin, end]. piece: what of it is decided at once, [begin, end];
   more or less than the sentence where the reviewer has joined or split. act: {id, act, a: answer, b, e, l: label,
   undoes, s: seconds}. Begin and end count code points of the answer. */

const CHOICES = [
  ["1", "no_hallucination"],
  ["2", "contradictory"],
  ["3", "unverifiable"],
  ["4", "no_fact"],
];
const NOT_ASKED = ["heading", "code", "fragment"];

let queue = { items: [], reviewer: "", of: 0, queue: "", run: "" };
const answers = new Map(); // number: what the server has told of the answer, with {map} of its characters
const asked = new Map(); // number: the request that is under way
const confirmed = []; // acts that are in the file
let pending = []; // acts that are not known to be
const shapes = new Map(); // item: the pieces that are still to decide, after joining or splitting
const history = []; // what undo takes back: {item, pieces before, id of an act or null}
let at = 0;
let noted = "";

/* ---- which acts count: as verdicts/people.py says ---- */
let counted = null;
function changed() {
  counted = null;
}
function standing() {
  if (counted) return counted;
  const known = new Set(confirmed.map((act) => act.id));
  const all = [...confirmed, ...pending.filter((act) => !known.has(act.id))];
  const undone = new Set(all.map((act) => act.undoes).filter(Boolean));
  counted = new Map(); // by answer, the newest first
  for (const act of all.reverse()) {
    if (act.act === "undo" || undone.has(act.id)) continue;
    if (!counted.has(act.a)) counted.set(act.a, []);
    const newer = counted.get(act.a);
    if (newer.every((other) => act.e <= other.b || other.e <= act.b)) newer.push(act);
  }
  return counted;
}
const overlapping = (a, b, e) => (standing().get(a) || []).filter((act) => act.b < e && b < act.e);

/* ---- what is still to decide of an item ---- */
function pieces(i) {
  if (shapes.has(i)) return shapes.get(i);
  const [a, begin, end] = queue.items[i];
  const there = overlapping(a, begin, end).sort((x, y) => x.b - y.b);
  if (!there.length) return [[begin, end]];
  const gaps = [];
  let from = begin;
  for (const act of there) {
    if (act.b > from) gaps.push([from, act.b]);
    from = Math.max(from, act.e);
  }
  if (from < end) gaps.push([from, end]);
  if (!gaps.length) return [];
  if (!answers.has(a)) {
    load(a).then(draw, () => {}); // the gaps may be white space, which only the text tells
    return [];
  }
  return gaps.map(([b, e]) => trimmed(a, b, e)).filter(([b, e]) => b < e);
}
const part = (a, b, e) => {
  const { t, map } = answers.get(a);
  return t.slice(map.at(b), map.at(e));
};
function trimmed(a, b, e) {
  const words = part(a, b, e);
  const length = (x) => [...x].length;
  const begin = b + length(words) - length(words.trimStart());
  return [begin, begin + length(words.trim())];
}
const isOpen = (i) => pieces(i).length > 0;
/** The first open item from i on, around the end of the queue; -1: there is none. */
function openFrom(i, step = 1) {
  const n = queue.items.length;
  for (let k = 0; k < n; k++) {
    const item = (((i + k * step) % n) + n) % n;
    if (isOpen(item)) return item;
  }
  return -1;
}
/** The place of work: {item, a, b, e}, or null where all is decided. */
function here() {
  if (!queue.items.length || !isOpen(at)) return null;
  const [b, e] = pieces(at)[0];
  return { item: at, a: queue.items[at][0], b, e };
}

/* ---- answers are there before they are needed ---- */
const AHEAD = 8;
function load(number) {
  if (answers.has(number)) return Promise.resolve();
  if (!asked.has(number)) {
    const request = ask(`api/answers/${number}`).then((answer) => {
      answers.set(number, { ...answer, map: pointMap(answer.t) });
    });
    asked.set(number, request);
    request.catch(() => {}).then(() => asked.delete(number));
  }
  return asked.get(number);
}
function loadAhead() {
  let item = at;
  for (let k = 0; k < AHEAD; k++) {
    if (item < 0) return;
    load(queue.items[item][0]).catch(() => {});
    item = openFrom(item + 1);
  }
}
