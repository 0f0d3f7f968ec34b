/* ---- the inspector: verdict and reference ---- */
let shownReference = "";
function drawInspector() {
  const box = $("inspector");
  const item = items[current.item];
  box.hidden = !item;
  if (!item) return;
  const side = item.a[current.side];
  const s = side && current.sentence >= 0 ? side.s[current.sentence] : null;
  const { ref: passages, src: sources = [] } = prompts[item.p];
  const found = s && s.ev ? locate(s.ev, passages) : new Map();
  box.classList.toggle("has-sentence", Boolean(s));
  $("verdict").replaceChildren(s ? verdict(s, found, passages, sources) : hint());
  const key = `${item.p}:${s && s.ev ? s.ev : ""}`;
  if (key !== shownReference) $("reference").replaceChildren(reference(passages, found, { sources })); // else its place is kept
  shownReference = key;
  const first = box.querySelector(".passage mark");
  if (!first) return;
  const passagesBox = box.querySelector(".passages");
  const scroller = getComputedStyle(passagesBox).overflowY === "visible" ? box : passagesBox;
  if (scroller === passagesBox)
    scroller.scrollTop +=
      first.getBoundingClientRect().top - scroller.getBoundingClientRect().top - scroller.clientHeight / 3;
}
const hint = () =>
  h(
    "p",
    { class: "hint" },
    "Point at a sentence, or tap it, to see its verdict. ",
    h("span", {}, h("kbd", {}, "j"), " ", h("kbd", {}, "k")),
    " move between answers, ",
    h("kbd", {}, "→"),
    " between sentences.",
  );
function verdict(s, found, passages, sources) {
  const look = LABELS[labelOf(s)];
  const where = [...found.keys()].map((p) => (sources[p] ? `${p + 1} (${nameOf(sources[p])})` : p + 1));
  const gold = s.g
    ? h(
        "p",
        { class: `gold${disagrees(s) ? " differs" : ""}` },
        disagrees(s) ? "≠ " : "= ",
        "gold says ",
        h("b", {}, LABELS[s.g].name.toLowerCase()),
      )
    : null;
  return h(
    "div",
    { class: "verdict" },
    h(
      "p",
      { class: "head" },
      h("span", { class: `tag l-${labelOf(s)}` }, h("span", { class: "glyph" }, look.mark), look.name),
      s.k ? h("span", { class: "kind" }, s.k.replace("_", " ")) : null,
      s.c !== undefined ? h("span", { class: "confidence" }, meter(s.c), `confidence ${s.c.toFixed(2)}`) : null,
    ),
    s.st
      ? h("p", { class: "why-line" }, `Status ${s.st}: ${STATUS[s.st]}.`)
      : h("p", { class: "says" }, `${look.says[0].toUpperCase()}${look.says.slice(1)}.`),
    s.sc ? probabilities(s) : null,
    kind === "pairs"
      ? h(
          "p",
          { class: "train-line" },
          s.tr
            ? current.side
              ? "▼ Takes part in the loss: made less likely."
              : "▲ Takes part in the loss: made likelier."
            : "Masked: takes no part in the loss.",
        )
      : null,
    gold,
    s.re ? [h("h4", {}, "Reason"), h("p", { dir: "auto", class: "reason" }, clip(s.re, 4000))] : null,
    s.ev
      ? [
          h("h4", {}, "Evidence"),
          h("blockquote", { dir: "auto" }, clip(s.ev, 4000)),
          passages.length
            ? h(
                "p",
                { class: "where" },
                where.length ? `in passage ${where.join(", ")}` : "not found word for word in the reference",
              )
            : null,
        ]
      : null,
  );
}

/** The judge's probability of each label; what it left open is no label's. */
function probabilities(s) {
  const open = 1 - Object.values(s.sc).reduce((sum, p) => sum + p, 0);
  const row = (name, p, label) => [h("dt", {}, name), h("dd", {}, meter(p, label), p.toFixed(2))];
  return h(
    "dl",
    { class: "scores", "aria-label": "Probabilities as the judge gave them" },
    Object.keys(LABELS)
      .filter((label) => s.sc[label] !== undefined)
      .map((label) => row(`${LABELS[label].mark} ${LABELS[label].name}`, s.sc[label], `l-${label}`)),
    open > 0.005 ? row("left open", open, "l-none") : null,
  );
}
