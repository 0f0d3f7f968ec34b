/* ---- what the reviewer does ---- */
const clock = { ms: 0, last: 0, place: "" };
/** Time counts while the page is seen. A pause of the machine is no time: a tick is never longer than two seconds. */
function tick() {
  const now = performance.now();
  if (!document.hidden) clock.ms += Math.min(2000, now - clock.last);
  clock.last = now;
}
function newId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
function push(act) {
  const whole = { when: stamp(), known: [], s: 0, l: null, undoes: null, note: null, ...act };
  pending.push(whole);
  keep(whole);
  if (unkept.size) drawSaved();
  changed();
  send();
}
function decide(label) {
  const place = here();
  if (!place || !answers.has(place.a) || splitting) return;
  tick();
  const id = newId();
  const { item, a, b, e } = place;
  const before = shapes.get(item);
  const known = overlapping(a, b, e).map((act) => act.id);
  if (before) before.length > 1 ? shapes.set(item, before.slice(1)) : shapes.delete(item);
  history.push({ item, before, id });
  const words = noted.trim();
  const note = (words.toWellFormed?.() ?? words) || null; // half of a character, which a field that is full may leave
  push({ id, act: label ? "label" : "skip", item, a, b, e, l: label, s: clock.ms / 1000, note, known });
  noted = "";
  tell("");
  move(isOpen(item) ? 0 : 1);
}
function move(step) {
  const item = openFrom(at + step, step < 0 ? -1 : 1);
  if (item >= 0) at = item;
  splitting = null;
  draw();
}
function undo() {
  splitting = null;
  const last = history.pop() || olderAct();
  if (!last) return tell("There is nothing to undo.");
  if (last.before) shapes.set(last.item, last.before);
  else shapes.delete(last.item);
  const act = last.id && [...standing().values()].flat().find((one) => one.id === last.id);
  if (act) push({ id: newId(), act: "undo", item: last.item, a: act.a, b: act.b, e: act.e, undoes: act.id });
  at = last.item;
  tell("");
  draw();
}
/** The last act of an earlier page that stands. */
function olderAct() {
  const stands = new Set([...standing().values()].flat().map((act) => act.id));
  const act = confirmed.findLast((one) => stands.has(one.id));
  const item = act ? queue.items.findIndex(([a, b, e]) => a === act.a && b < act.e && act.b < e) : -1;
  return item < 0 ? null : { item, before: undefined, id: act.id };
}

/* ---- the buttons ---- */
const ACTIONS = [
  ["s", "Skip", () => decide(null)],
  ["u", "Undo", undo],
  ["n", "Note", () => $("note").focus()],
  ["j", "Join with next", () => join(1)],
  ["J", "Join with the one before", () => join(-1)],
  ["x", "Split", startSplit],
  ["ArrowLeft", "Back", () => move(-1)],
  ["ArrowRight", "Next", () => move(1)],
];
const SHOWN_KEYS = { ArrowLeft: "←", ArrowRight: "→", Enter: "↵", Escape: "Esc" };
function drawButtons() {
  const button = (key, words, action, attributes, ...more) =>
    h(
      "button",
      { type: "button", onclick: () => { action(); }, "aria-keyshortcuts": key, ...attributes },
      ...more,
      h("span", { class: "words" }, words),
      h("kbd", { "aria-hidden": "true" }, SHOWN_KEYS[key] || key),
    );
  const choices = CHOICES.map(([key, label]) =>
    button(key, LABELS[label].name, () => decide(label), { class: `choice l-${label}`, title: LABELS[label].says, "data-label": label }, h("span", { class: "glyph", "aria-hidden": "true" }, LABELS[label].mark)),
  );
  const splits = [
    button("ArrowLeft", "Word before", () => moveSplit(-1), { class: "plain" }),
    button("ArrowRight", "Word after", () => moveSplit(1), { class: "plain" }),
    button("Enter", "Split here", split, { class: "plain" }),
    button("Escape", "Do not split", stopSplit, { class: "plain" }),
  ];
  const actions = ACTIONS.map(([key, name, action]) => button(key, name, action, { class: "plain", "data-key": key }));
  $("decide").replaceChildren(
    h("div", { class: "choices", role: "group", "aria-label": "Label" }, choices),
    h(
      "div",
      { class: "under" },
      h("div", { class: "actions", id: "actions", role: "group", "aria-label": "Other actions" }, actions),
      h("div", { class: "actions", id: "splitting", role: "group", "aria-label": "Split the sentence", hidden: true }, splits),
      h(
        "label",
        { class: "field grow note" },
        h("span", {}, "Note"),
        h("input", {
          id: "note",
          type: "text",
          maxlength: "2000",
          autocomplete: "off",
          placeholder: "on this sentence",
          oninput: (event) => (noted = event.target.value),
        }),
      ),
    ),
  );
}
function stopSplit() {
  splitting = null;
  draw();
}
