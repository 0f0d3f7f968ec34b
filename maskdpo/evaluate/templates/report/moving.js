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
function reveal(item) {
  // scroll to a card, wherever it is
  const k = view.indexOf(item);
  if (k < 0) return;
  const room = barHeight() + 14;
  for (let round = 0; round < 3; round++) {
    // offsets of cards never seen are guesses: look again once it is there
    window.scrollTo({
      top: list.getBoundingClientRect().top + window.scrollY + offsets[k] - room,
      behavior: "instant",
    });
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
  if (!sentenceAt(current)) {
    unfolded.add(`${item}:${side}`);
    redraw(item);
  } // it lies in the folded part
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
    if (found) {
      goto(view[k], found[0], found[1]);
      return;
    }
  }
}
