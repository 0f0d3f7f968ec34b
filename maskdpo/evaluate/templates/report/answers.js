/* ---- one card ---- */
const unfolded = new Set(); // "item:side" of long answers that were opened

const thoughtsShown = new Set(); // the same of reasoning

function marked(words) {
  if (!terms.length) return [words];
  const spans = terms
    .flatMap((term) => [...words.matchAll(term)].map((m) => [m.index, m.index + m[0].length]))
    .sort((a, b) => a[0] - b[0]);
  const out = [];
  let at = 0;
  for (const [begin, end] of spans) {
    if (end <= at) continue;
    out.push(words.slice(at, Math.max(at, begin)), h("mark", {}, words.slice(Math.max(at, begin), end)));
    at = end;
  }
  return [...out, words.slice(at)];
}

function answerText(i, sideIndex) {
  const side = items[i].a[sideIndex];
  const map = pointMap(side.t);
  const key = `${i}:${sideIndex}`;
  const limit = unfolded.has(key) || map.length <= FOLD * 1.25 ? map.length : FOLD;
  const plain = (begin, end) => marked(side.t.slice(map.at(Math.min(begin, limit)), map.at(Math.min(end, limit))));
  const piece = (begin, end) => withTokens(side.tk, begin, end, plain);
  const nodes = [];
  let at = 0;
  side.s.forEach((s, k) => {
    if (s.b >= limit) return;
    if (s.b > at) nodes.push(...piece(at, s.b));
    nodes.push(sentenceNode(s, i, sideIndex, k, piece(s.b, s.e)));
    at = s.e;
  });
  if (at < limit) nodes.push(...piece(at, limit));
  const body = h("div", { class: "text", dir: direction(side.t) }, nodes);
  if (limit === map.length) return body;
  const rest = map.length - limit;
  return [
    body,
    h(
      "button",
      {
        type: "button",
        class: "link more",
        onclick: () => {
          unfolded.add(key);
          redraw(i);
        },
      },
      `… show ${plural(rest, "more character")}`,
    ),
  ];
}
/** The text from begin to end, with the tokens that train in nodes of their own. */
function withTokens(tokens, begin, end, plain) {
  if (!tokens) return plain(begin, end);
  const out = [];
  let at = begin;
  for (const [from, to] of tokens) {
    const [low, high] = [Math.max(at, from), Math.min(end, to)];
    if (low >= high) continue;
    out.push(...plain(at, low), h("span", { class: "tok" }, plain(low, high)));
    at = high;
  }
  return [...out, ...plain(at, end)];
}
function sentenceNode(s, i, sideIndex, k, pieces) {
  const classes = ["s", `l-${labelOf(s)}`];
  if (s.k) classes.push(`k-${s.k}`);
  if (kind === "pairs") classes.push(s.tr ? "trained" : "masked", sideIndex ? "down" : "up");
  if (disagrees(s)) classes.push("differs");
  if (!wanted(s)) classes.push("dim");
  if (current.item === i && current.side === sideIndex && current.sentence === k) classes.push("now");
  return h(
    "span",
    { class: classes.join(" "), dir: "auto", tabindex: "0", role: "button", "data-side": sideIndex, "data-k": k },
    pieces,
    s.st ? h("span", { class: "why" }, s.st.replace("_", " ")) : null,
  );
}

function sideNode(i, sideIndex) {
  const side = items[i].a[sideIndex];
  const name = SIDES[sideIndex] ? h("b", { class: "side" }, SIDES[sideIndex]) : null;
  if (!side)
    return h(
      "section",
      { class: "answer" },
      h("header", {}, name),
      h("p", { class: "empty-side" }, "No answer on this side."),
    );
  const stats = items[i].stats[sideIndex];
  const counts = Object.keys(GROUPS).map((group) =>
    h(
      "span",
      { class: `n g-${group}`, title: `${stats[group]} ${GROUPS[group].toLowerCase()}` },
      { right: "✓", wrong: "✕", no_fact: "–", none: "∅" }[group],
      String(stats[group]),
    ),
  );
  return h(
    "section",
    { class: "answer" },
    h(
      "header",
      {},
      name,
      side.m ? h("bdi", { class: "model" }, clip(side.m, NAME)) : null,
      side.score !== undefined
        ? h("span", { class: "score", title: "score in the pair" }, `score ${side.score.toFixed(3)}`)
        : null,
      h("span", { class: "counts", role: "img", "aria-label": fourWay(stats) }, counts),
      stack(stats, false),
      h("span", { class: "length" }, plural(stats.length, "char")),
      side.fin === "length" ? h("span", { class: "cut", title: "stopped at the token limit" }, "cut off") : null,
      SIDES.length > 1 ? null : itemNode(i),
    ),
    side.r && side.r.trim() ? reasoning(i, sideIndex, side.r.trim()) : null,
    answerText(i, sideIndex),
    printing ? notes(side) : null,
  );
}
/** What the model wrote before its answer: folded, and no part of any figure. */
function reasoning(i, sideIndex, words) {
  const length = plural(pointMap(words).length, "char");
  const key = `${i}:${sideIndex}`;
  return h(
    "details",
    {
      class: "reasoning",
      open: thoughtsShown.has(key), // a card is drawn anew when one of its sentences is chosen
      ontoggle: (event) => thoughtsShown[event.target.open ? "add" : "delete"](key),
    },
    h("summary", {}, `Reasoning (${length})`),
    h("div", { class: "text", dir: direction(words) }, words),
  );
}
/** On paper there is no pointing at a sentence: what was wrong is listed under the answer. */
function notes(side) {
  const map = pointMap(side.t);
  const lines = side.s
    .filter((s) => groupOf(s.l) === "wrong" || s.st || disagrees(s))
    .map((s) =>
      h(
        "li",
        {},
        h("b", {}, LABELS[labelOf(s)].name, s.st ? ` (${s.st})` : "", s.c !== undefined ? ` ${s.c.toFixed(2)}` : ""),
        ": ",
        h("bdi", {}, `“${side.t.slice(map.at(s.b), map.at(Math.min(s.e, s.b + 90)))}${s.e - s.b > 90 ? "…" : ""}”`),
        s.re ? [" ", h("bdi", {}, s.re)] : null,
        s.ev ? [" Evidence: ", h("bdi", {}, s.ev)] : null,
        s.g ? ` Gold: ${LABELS[s.g].name}.` : null,
      ),
    );
  return lines.length ? h("ul", { class: "notes" }, lines) : null;
}

const ofPrompt = new Map(); // answers in the whole file, by prompt
for (const { p } of items) ofPrompt.set(p, (ofPrompt.get(p) || 0) + 1);

/** The heading of a run of answers to one prompt, the first of which stands at this position. */
function promptNode(position) {
  const prompt = prompts[items[view[position]].p];
  const all = ofPrompt.get(items[view[position]].p);
  let run = 1;
  while (continues(position + run - 1)) run += 1;
  return h(
    "header",
    { class: "question" },
    h("h3", { dir: "auto" }, prompt.q ? marked(clip(prompt.q, 1200)) : clip(prompt.id, NAME)),
    h(
      "p",
      { class: "meta" },
      prompt.topic !== prompt.id ? h("bdi", { class: "topic" }, clip(prompt.topic, NAME)) : null,
      all > 1 ? h("span", { class: "run" }, `${run < all ? `${count(run)} of ` : ""}${plural(all, NOUN)}`) : null,
    ),
  );
}
/** What names one answer, comparison or pair. */
function itemNode(i) {
  const item = items[i];
  return h(
    "p",
    { class: "meta" },
    h("span", { class: "number" }, `#${i + 1}`),
    item.w !== undefined ? h("span", { title: "factor on the loss" }, `weight ${item.w}`) : null,
    item.out ? h("bdi", { class: "cut" }, `not trained on: ${item.out}`) : null,
    h("bdi", {}, clip(item.id, NAME)),
  );
}

/** One answer (or two side by side). Those to one prompt look like one card, and the first of them has the heading. */
function cardNode(i, position) {
  const item = items[i];
  const classes = ["card"];
  if (current.item === i) classes.push("current");
  if (!leads(position)) classes.push("follows");
  if (continues(position)) classes.push("continued");
  return h(
    "article",
    {
      class: classes.join(" "),
      tabindex: "-1",
      "data-i": i,
      "aria-posinset": position + 1,
      "aria-setsize": view.length,
    },
    leads(position) ? promptNode(position) : null,
    SIDES.length > 1 ? itemNode(i) : null,
    h(
      "div",
      { class: `sides n${SIDES.length}${item.a.some((side) => side && side.tk) ? " by-token" : ""}` },
      SIDES.map((_, side) => sideNode(i, side)),
    ),
  );
}
