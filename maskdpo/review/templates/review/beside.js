/* ---- beside the answer: what others say, and the reference ---- */
function drawJudge(place) {
  const said = answers.get(place.a).shown[place.item];
  const people = said.people.map((one) => opinion(one.who, one.label, null, one.note, { text: one.text }));
  if (said.blind) {
    $("judge").replaceChildren(
      h("h4", {}, "Judge"),
      h("p", { class: "hint" }, "Hidden: this sentence is decided blind."),
      ...people,
    );
    return;
  }
  const { l, st, c, re, ev } = said.judge;
  $("judge").replaceChildren(
    opinion("Judge", l, c, l ? re : STATUS[st], { st }),
    ...said.judges.map((one) => opinion(one.who, one.label, null, one.note)),
    ...people,
    ev ? h("div", {}, h("h4", {}, "Evidence of the judge"), h("blockquote", { dir: "auto" }, clip(ev, 4000))) : "",
  );
}
/** text: what a reviewer has decided in place of this sentence; st: the status of a judge without a label. */
function opinion(who, label, confidence, note, { text = null, st = null } = {}) {
  const name = labelOf({ l: label, st });
  const look = LABELS[name];
  return h(
    "div",
    { class: "verdict" },
    h("h4", {}, h("bdi", {}, clip(who, 120))),
    h(
      "p",
      { class: "head" },
      h("span", { class: `tag l-${name}` }, h("span", { class: "glyph", "aria-hidden": "true" }, look.mark), look.name),
      typeof confidence === "number"
        ? h("span", { class: "confidence" }, meter(confidence), `confidence ${confidence.toFixed(2)}`)
        : null,
    ),
    text === null ? null : h("p", { class: "reason cut" }, "of ", h("q", { dir: "auto" }, clip(text, 4000))),
    note ? h("p", { class: "reason", dir: "auto" }, clip(note, 4000)) : null,
  );
}

let shownReference = "";
function drawReference(place) {
  const answer = answers.get(place.a);
  const said = answer.shown[place.item];
  const key = `${place.a}:${place.item}:${place.b}:${place.e}`;
  if (key === shownReference) return; // its place is kept
  shownReference = key;
  const evidence = said.judge && said.judge.ev;
  const rare = rareWords(answer, part(place.a, place.b, place.e));
  const found = evidence ? locate(evidence, answer.ref) : new Map();
  $("reference").replaceChildren(reference(answer.ref, found, { sources: answer.src, limit: Infinity, plain: (words) => underlined(words, rare) }));
  const box = $("reference").querySelector(".passages");
  const first = box && (box.querySelector("mark") || densest(box));
  if (!box) return;
  box.scrollTop = first ? box.scrollTop + first.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight / 3 : 0;
}

/* Words of the sentence are underlined in the reference, whoever judges: they show where to read. Words that are
   frequent in the reference show nothing. */
const segmenter = new Intl.Segmenter(undefined, { granularity: "word" });
const COMMON = new Set("also been from have into such than that their them then they this were what when which will with would".split(" "));
const says = (segment) => /\p{N}/u.test(segment) || [...segment].length > (/[\u2e80-\u9fff\uac00-\ud7af]/.test(segment) ? 1 : 3);
function rareWords(answer, sentence) {
  if (!answer.frequency) {
    answer.frequency = new Map();
    for (const passage of answer.ref)
      for (const { segment, isWordLike } of segmenter.segment(passage))
        if (isWordLike) {
          const word = segment.toLowerCase();
          answer.frequency.set(word, (answer.frequency.get(word) || 0) + 1);
        }
    answer.words = [...answer.frequency.values()].reduce((sum, n) => sum + n, 0);
  }
  const most = Math.max(4, answer.words / 50);
  const words = [...segmenter.segment(sentence)].filter((one) => one.isWordLike).map((one) => one.segment.toLowerCase());
  return new Set(words.filter((word) => says(word) && !COMMON.has(word) && answer.frequency.has(word) && answer.frequency.get(word) <= most));
}
function underlined(words, rare) {
  if (!rare.size) return [words];
  const out = [];
  let plain = "";
  for (const { segment } of segmenter.segment(words)) {
    if (!rare.has(segment.toLowerCase())) {
      plain += segment;
      continue;
    }
    out.push(plain, h("span", { class: "same" }, segment));
    plain = "";
  }
  return [...out, plain];
}
/** The underlined word around which most others stand. */
function densest(box) {
  const words = [...box.querySelectorAll(".same")].slice(0, 400);
  const heights = words.map((word) => word.offsetTop);
  let best = 0;
  let most = -1;
  heights.forEach((top, k) => {
    const near = new Set(words.filter((_, j) => heights[j] >= top && heights[j] < top + 120).map((w) => w.textContent.toLowerCase()));
    if (near.size > most) [best, most] = [k, near.size];
  });
  return words[best];
}
