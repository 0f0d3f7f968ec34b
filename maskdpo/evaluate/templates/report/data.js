/* The report of answers and pairs. The files of this folder run as one function after those of ../page, in the order
   that page.py names.

   Names in the data: prompt {id, q: question, topic, ref: passages of the reference, src: for each of them where it was
   found {document, title, start, end, score}, or null}; item {id, p: prompt, a: sides, w: weight, out: why it is not trained on}; side {id, t: text,
   r: reasoning before it, s: sentences, m: model, fin, score, tk: spans of trained tokens,
   cal: labels and confidences are those of a calibration};
   sentence {b: begin, e: end, l: label, st: status, c: confidence, sc: probabilities of labels, ev: evidence,
   re: reason, k: kind, g: gold, tr: takes part in the loss}. Begin and end count code points. */

const { items, prompts, kind } = DATA;
const SIDES = { answers: [""], compare: ["Before", "After"], pairs: ["Chosen", "Rejected"] }[kind];
const MAIN = kind === "compare" ? 1 : 0; // the side that sorting by score or length looks at
const FOLD = 2400; // characters of an answer that are shown at first, where it is much longer

for (const status of ["unsure", "fragment"])
  if (!items.some((item) => item.a.some((side) => side && side.s.some((s) => s.st === status)))) delete LABELS[status];
const disagrees = (s) => Boolean(s.l && s.g && groupOf(s.l) !== groupOf(s.g));

/** The probability of right, and of wrong, in the judge's scores. */
const rightOf = (s) => s.sc.no_hallucination || 0;
const wrongOf = (s) => (s.sc.contradictory || 0) + (s.sc.unverifiable || 0) + (s.sc.hallucination || 0);

/** How sure a label is: |P(right) - P(wrong)| by the judge's scores; the confidence where there are none, or where the
   label comes from a calibration, under which raw scores say little (unsure: 0); null: nothing is known. */
function sureOf(s, calibrated) {
  if (calibrated && s.st === "unsure") return 0;
  if (s.sc && !calibrated) return Math.abs(rightOf(s) - wrongOf(s));
  return s.c === undefined ? null : s.c;
}

/* ---- what is known of every answer ---- */
for (const item of items) {
  item.stats = item.a.map((side) => side && statsOf(side));
}
function statsOf(side) {
  const stats = {
    right: 0,
    wrong: 0,
    no_fact: 0,
    none: 0,
    n: 0,
    labels: {},
    disagree: 0,
    trained: 0,
    status: new Set(),
    sure: null, // of the most doubtful sentence
  };
  for (const s of side.s) {
    const label = labelOf(s);
    stats.labels[label] = (stats.labels[label] || 0) + 1;
    stats.status.add(s.st || "ok");
    if (label === "fragment") continue;
    stats.n += 1;
    stats[LABELS[label].group] += 1;
    stats.disagree += disagrees(s);
    stats.trained += s.tr || 0;
    const sure = sureOf(s, side.cal);
    if (sure !== null && (stats.sure === null || sure < stats.sure)) stats.sure = sure;
  }
  stats.score = stats.n ? stats.right / stats.n : null;
  stats.length = pointMap(side.t).length;
  return stats;
}
