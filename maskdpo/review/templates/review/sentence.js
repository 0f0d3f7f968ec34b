/* ---- the answer, with the sentence to decide ---- */
let splitting = null; // {marks: places where the sentence may be split, k: the one under the cursor}

/** Text in which what this reviewer has decided has its label. */
function nodesOf(a, from, to) {
  const out = [];
  let done = from;
  const decided = overlapping(a, from, to).sort((x, y) => x.b - y.b);
  for (const act of decided) {
    const begin = Math.max(act.b, from);
    if (begin > done) out.push(part(a, done, begin));
    done = Math.min(act.e, to);
    out.push(h("span", { class: `s l-${act.l || "none"}`, title: act.l ? LABELS[act.l].name : "skipped" }, part(a, begin, done)));
  }
  if (done < to) out.push(part(a, done, to));
  return out;
}

function drawAnswer(place) {
  const answer = answers.get(place.a);
  const length = answer.map.length;
  const { b, e } = place;
  $("question").textContent = answer.q;
  const now = h(
    "mark",
    { class: "here", id: "here", "aria-current": "true" },
    splitting ? splitNodes(place) : part(place.a, b, e),
  );
  $("answer").dir = direction(answer.t);
  $("answer").replaceChildren(...nodesOf(place.a, 0, b), now, ...nodesOf(place.a, e, length));
  const box = now.getBoundingClientRect();
  const card = $("answer").parentElement.getBoundingClientRect(); // on a phone it scrolls by itself
  const high = Math.max(0, card.top);
  const low = Math.min(card.bottom, $("decide").getBoundingClientRect().top - 8);
  if (box.top < high || box.bottom > low) now.scrollIntoView({ block: box.height < low - high ? "center" : "start" });
}

/* ---- mending cuts ---- */
function reshape(place, newPieces) {
  history.push({ item: place.item, before: shapes.get(place.item), id: null });
  shapes.set(place.item, newPieces);
  splitting = null;
  draw();
}
function join(step) {
  const place = here();
  if (!place) return;
  const spans = answers.get(place.a).s;
  const index =
    step > 0 ? spans.findIndex(([b]) => b >= place.e) : spans.findLastIndex(([, e]) => e <= place.b);
  const [b, e, kind] = spans[index] || [];
  if (index < 0 || NOT_ASKED.includes(kind)) return tell("There is no sentence to join with on that side.");
  reshape(place, [[Math.min(b, place.b), Math.max(e, place.e)], ...pieces(place.item).slice(1).filter(([from]) => from >= e)]);
}
function startSplit() {
  const place = here();
  if (!place) return;
  const words = part(place.a, place.b, place.e);
  const marks = [];
  let offset = place.b;
  for (const { segment, isWordLike } of new Intl.Segmenter(undefined, { granularity: "word" }).segment(words)) {
    if (offset > place.b && isWordLike) marks.push(offset);
    offset += [...segment].length;
  }
  if (!marks.length) return tell("The sentence is one word.");
  const at = cursor(place);
  const k = at === null ? Math.floor(marks.length / 2) : marks.findLastIndex((mark) => mark <= at);
  splitting = { marks, k: Math.max(0, k) };
  draw();
}
/** Where the reviewer has clicked into the sentence, as a character of the answer; null: elsewhere. */
function cursor(place) {
  const { focusNode, focusOffset } = getSelection();
  if (!focusNode || focusNode.parentNode !== $("here")) return null;
  return place.b + [...focusNode.data.slice(0, focusOffset)].length;
}
function splitNodes(place) {
  const ends = [...splitting.marks, place.e];
  const first = h("span", {}, part(place.a, place.b, ends[0]));
  return [
    first,
    splitting.marks.map((mark, k) => [
      k === splitting.k ? h("span", { class: "caret", role: "img", "aria-label": "split here" }) : null,
      h("span", { class: "word", onclick: () => moveSplit(k - splitting.k) }, part(place.a, mark, ends[k + 1])),
    ]),
  ];
}
function moveSplit(step) {
  splitting.k = Math.max(0, Math.min(splitting.marks.length - 1, splitting.k + step));
  draw();
}
function split() {
  const place = here();
  const mark = splitting.marks[splitting.k];
  const [first, second] = [trimmed(place.a, place.b, mark), trimmed(place.a, mark, place.e)];
  reshape(place, [first, second, ...pieces(place.item).slice(1)]);
}
