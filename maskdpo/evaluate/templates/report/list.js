/* ---- the list: only what is near the viewport is in the DOM ---- */
const GAP = 18,
  MARGIN = 700,
  PRINTED = 500;
const list = $("list");
const above = h("div", { class: "spacer" }),
  below = h("div", { class: "spacer" });
let heights = new Float64Array(items.length); // measured; 0: not yet
let offsets = new Float64Array(1);
let nodes = new Map();
let printing = false,
  scheduled = false,
  lastWidth = 0;

/** Whether the card at this position is the first of its prompt, which has the heading for those below it. */
const leads = (k) => k === 0 || items[view[k]].p !== items[view[k - 1]].p;
const continues = (k) => k + 1 < view.length && !leads(k + 1);

function guess(k) {
  const i = view[k];
  const columns = SIDES.length > 1 && lastWidth > 700 ? 2 : 1;
  const perLine = Math.max(20, lastWidth / columns / 8.4);
  const lines = items[i].stats.map((s) => (s ? Math.ceil(Math.min(s.length, FOLD) / perLine) + 1 : 2));
  return (leads(k) ? 130 : 70) + 28 * (columns > 1 ? Math.max(...lines) : lines.reduce((a, b) => a + b, 0));
}
function layout() {
  offsets = new Float64Array(view.length + 1);
  for (let k = 0; k < view.length; k++) {
    offsets[k + 1] = offsets[k] + (heights[view[k]] || guess(k)) + (continues(k) ? 0 : GAP);
  }
}
function at(y) {
  // the position whose card covers y
  let low = 0,
    high = view.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (offsets[middle] <= y) low = middle;
    else high = middle - 1;
  }
  return low;
}
function rebuildList() {
  for (const node of nodes.values()) {
    watcher.unobserve(node);
    node.remove();
  }
  nodes = new Map();
  if (!view.length) {
    list.replaceChildren(
      h(
        "p",
        { class: "nothing" },
        `No ${NOUN} passes these filters. `,
        h("button", { type: "button", class: "link", onclick: clearFilters }, "Clear them"),
      ),
    );
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
  if (printing && view.length > PRINTED)
    below.replaceWith(h("p", { class: "nothing" }, `The first ${count(PRINTED)} of ${plural(view.length, NOUN)}.`));
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
  for (const [i, node] of nodes)
    if (!keep.has(i)) {
      watcher.unobserve(node);
      node.remove();
      nodes.delete(i);
    }
  let cursor = above.nextSibling;
  for (let k = first; k <= last; k++) {
    const i = view[k];
    let node = nodes.get(i);
    if (!node) {
      node = cardNode(i, k);
      nodes.set(i, node);
      list.insertBefore(node, cursor);
      watcher.observe(node);
    } else cursor = node.nextSibling;
  }
  above.style.height = `${offsets[first]}px`;
  below.style.height = `${Math.max(0, offsets[view.length] - offsets[last + 1])}px`;
  return measure();
}
function measure() {
  let changed = false;
  for (const [i, node] of nodes) {
    const height = node.getBoundingClientRect().height;
    if (height && Math.abs(height - heights[i]) > 0.5) {
      heights[i] = height;
      changed = true;
    }
  }
  if (changed) layout();
  return changed;
}
function schedule() {
  if (!scheduled) {
    scheduled = true;
    requestAnimationFrame(paint);
  }
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
