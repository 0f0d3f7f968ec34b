/* ---- totals over what is shown ---- */
function totals(sideIndex) {
  const sum = {
    right: 0,
    wrong: 0,
    no_fact: 0,
    none: 0,
    n: 0,
    answers: 0,
    length: 0,
    cut: 0,
    trained: 0,
    disagree: 0,
    labels: {},
  };
  for (const i of view) {
    const stats = items[i].stats[sideIndex];
    if (!stats) continue;
    for (const name of ["right", "wrong", "no_fact", "none", "n", "length", "trained", "disagree"])
      sum[name] += stats[name];
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
    const chip = h(
      "button",
      {
        type: "button",
        class: `chip l-${label}`,
        title: `${look.says}. Click: show only answers with such a sentence`,
        "aria-pressed": String(state.labels.has(label)),
        "data-label": label,
        onclick: () => {
          state.labels.has(label) ? state.labels.delete(label) : state.labels.add(label);
          apply();
          $("legend").querySelector(`[data-label=${label}]`).focus({ preventScroll: true });
        },
      },
      h("span", { class: "glyph", "aria-hidden": "true" }, look.mark),
      h("span", { class: "swatch" }, look.name),
      h("b", {}, count(n)),
    );
    if (!n && !state.labels.has(label)) chip.classList.add("zero");
    return [look.group, chip];
  });
  const wrong = h(
    "span",
    { class: "bundle", role: "group", "aria-label": "Wrong" },
    h("span", { class: "bundle-name" }, "Wrong"),
    chips.filter(([group]) => group === "wrong").map(([, chip]) => chip),
  );
  const of = (group) => chips.filter(([name]) => name === group).map(([, chip]) => chip);
  const training =
    kind !== "pairs"
      ? null
      : h(
          "span",
          { class: "bundle" },
          h(
            "span",
            { class: "key" },
            h("i", { class: "arrow up", "aria-hidden": "true" }, "▲"),
            "trained: made likelier",
          ),
          h(
            "span",
            { class: "key" },
            h("i", { class: "arrow down", "aria-hidden": "true" }, "▼"),
            "trained: made less likely",
          ),
          h("span", { class: "key faint" }, "faded: masked, takes no part"),
        );
  $("legend").replaceChildren(
    ...of("right"),
    wrong,
    ...of("no_fact"),
    ...of("none"),
    ...of("fragment"),
    ...(training ? [training] : []),
  );
}

/* ---- summary cards ---- */
function stack(sum, tall) {
  const names = Object.keys(LABELS).filter((label) => sum.labels[label] && LABELS[label].group in GROUPS);
  const parts = names.map((label) => {
    const part = h(
      "i",
      {
        class: `l-${label}`,
        title: `${LABELS[label].name}: ${count(sum.labels[label])} (${percent(sum.labels[label], sum.n)})`,
      },
      tall && sum.labels[label] / sum.n > 0.06 ? LABELS[label].mark : null,
    );
    part.style.flexGrow = sum.labels[label];
    return part;
  });
  return h("div", { class: tall ? "stack tall" : "stack", role: "img", "aria-label": fourWay(sum) }, parts);
}
const fourWay = (s) => `${s.right} right, ${s.wrong} wrong, ${s.no_fact} without a fact, ${s.none} not judged`;

const both = (sums, value) => sums.map(value).join(kind === "pairs" ? " | " : " → ");
function drawCards() {
  const sums = SIDES.map((_, side) => totals(side));
  const bars = h(
    "div",
    { class: "panel wide" },
    h("h2", {}, "Sentences"),
    sums.map((sum, side) =>
      h(
        "div",
        { class: "barline" },
        SIDES[side] && h("span", { class: "side" }, SIDES[side]),
        stack(sum, true),
        h("span", { class: "total" }, count(sum.n)),
      ),
    ),
  );
  const tiles = Object.keys(GROUPS).map((group) =>
    h(
      "div",
      { class: `panel tile g-${group}` },
      h("h2", {}, GROUPS[group]),
      h(
        "p",
        { class: "big" },
        sums.map((sum, side) => [
          side ? h("span", { class: "arrow-to" }, kind === "pairs" ? "|" : "→") : null,
          h("span", {}, percent(sum[group], sum.n)),
        ]),
      ),
      h(
        "p",
        { class: "small" },
        h("span", {}, `${both(sums, (sum) => count(sum[group]))} in all`),
        h(
          "span",
          {},
          `${both(sums, (sum) => (sum.answers ? (sum[group] / sum.answers).toFixed(2) : "–"))} per answer`,
        ),
      ),
    ),
  );
  const row = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, both(sums, value)));
  const facts = h(
    "div",
    { class: "panel facts" },
    h("h2", {}, kind === "pairs" ? "Pairs" : "Answers"),
    h(
      "dl",
      {},
      row("shown", (s) => count(s.answers)),
      row("mean length", (s) => (s.answers ? count(Math.round(s.length / s.answers)) : "–")),
      row("sentences each", (s) => (s.answers ? (s.n / s.answers).toFixed(1) : "–")),
      row("cut off", (s) => count(s.cut)),
      kind === "pairs" ? row("trained", (s) => percent(s.trained, s.n)) : null,
      DATA.gold ? row("differ from gold", (s) => count(s.disagree)) : null,
    ),
  );
  $("cards").replaceChildren(bars, facts, ...tiles);
  drawHeadline(sums);
}

/** The main figures in one line, for the time that the tables and plots are folded. */
function drawHeadline(sums) {
  const figures = Object.keys(GROUPS)
    .filter((group) => group === "right" || group === "wrong" || sums.some((sum) => sum[group]))
    .map((group) =>
      h(
        "span",
        { class: `figure g-${group}` },
        `${GROUPS[group]} `,
        h("b", {}, both(sums, (sum) => percent(sum[group], sum.n))),
      ),
    );
  const length = both(sums, (sum) => (sum.answers ? count(Math.round(sum.length / sum.answers)) : "–"));
  $("headline").replaceChildren(
    ...figures,
    h("span", { class: "figure minor" }, "Mean length ", h("b", {}, length)),
    h("span", { class: "opens" }, document.querySelector(".tables") ? "Tables and plots" : "Plots"),
  );
}
