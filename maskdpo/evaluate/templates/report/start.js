/* ---- keyboard, pointer, theme ---- */
const KEYS = {
  j: ["next answer", () => moveCard(1)],
  k: ["answer before", () => moveCard(-1)],
  ArrowDown: [null, () => moveCard(1), true],
  ArrowUp: [null, () => moveCard(-1), true],
  ArrowRight: ["next sentence", () => moveSentence(1)],
  ArrowLeft: ["sentence before", () => moveSentence(-1)],
  n: ["next wrong sentence", () => moveWrong(1)],
  N: ["wrong sentence before", () => moveWrong(-1)],
  "/": [
    "search",
    () => {
      $("query").focus();
      $("query").select();
    },
  ],
  x: ["clear the filters", clearFilters],
  f: ["figures: tables and plots", () => ($("figures").open = !$("figures").open)],
  t: ["light or dark", () => toggleTheme()],
  "?": ["this help", () => $("keys").showModal()],
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const field = event.target.closest?.("input, select, textarea, dialog");
  if (event.key === "Escape") {
    if (field && field.matches("input")) field.blur();
    else if (!field) select(current.item);
    return;
  }
  const action = KEYS[event.key];
  if (field || !action) return;
  if (action[2] && !event.target.closest(".list")) return; // arrows scroll the page until the list has the focus
  event.preventDefault();
  action[1]();
});
const place = (target) => {
  const card = target.closest?.(".card");
  if (!card) return null;
  const s = target.closest(".s");
  return [Number(card.dataset.i), s ? Number(s.dataset.side) : 0, s ? Number(s.dataset.k) : -1];
};
let hover = 0,
  pointer = "";
list.addEventListener("pointermove", (event) => {
  // scrolling under a resting pointer is no pointing
  const where = `${event.screenX}:${event.screenY}`;
  if (event.pointerType === "touch" || where === pointer) return;
  pointer = where;
  clearTimeout(hover);
  const to = place(event.target);
  if (to && to[2] >= 0) hover = setTimeout(() => select(...to), 70);
});
list.addEventListener("pointerleave", () => clearTimeout(hover));
list.addEventListener("click", (event) => {
  const to = place(event.target);
  if (to && !event.target.closest("button:not(.s)") && getSelection().isCollapsed) {
    started = true;
    select(...to);
    uncover();
  }
});
list.addEventListener("focusin", (event) => {
  const to = place(event.target);
  if (to && to[2] >= 0) select(...to);
});
list.addEventListener("keydown", (event) => {
  if ((event.key === "Enter" || event.key === " ") && event.target.matches(".s")) {
    event.preventDefault();
    select(...place(event.target));
    drawInspector();
  }
});

function start() {
  startTheme();
  startHelp(KEYS, ["close, leave the search", "The browser’s own find sees only the answers near the window: use / instead."]);
  const judged = DATA.judges.length
    ? `Judged by ${DATA.judges.slice(0, 3).join("; ")}${DATA.judges.length > 3 ? " and others" : ""}`
    : kind === "pairs"
      ? "Preference pairs, masked sentence by sentence"
      : "Labels without a judge on record";
  $("sub").append(h("bdi", {}, judged));
  $("inspector").append(
    h(
      "button",
      { type: "button", class: "icon close", "aria-label": "Close", onclick: () => select(current.item) },
      "✕",
    ),
    h("div", { id: "verdict", "aria-live": "polite" }),
    h("div", { id: "reference" }),
  );
  drawBar();
  readAddress();
  lastWidth = list.clientWidth;
  apply();
  window.addEventListener("scroll", schedule, { passive: true });
  new ResizeObserver(() => {
    if (Math.abs(list.clientWidth - lastWidth) > 1) {
      lastWidth = list.clientWidth;
      heights = new Float64Array(items.length);
      layout();
    }
    schedule();
  }).observe(list);
  $("figures").addEventListener("toggle", schedule); // the list has moved
  let folded = false;
  window.addEventListener("beforeprint", () => {
    printing = true;
    folded = !$("figures").open;
    $("figures").open = true; // paper cannot be unfolded
    rebuildList();
  });
  window.addEventListener("afterprint", () => {
    printing = false;
    if (folded) $("figures").open = false;
    rebuildList();
  });
  document.documentElement.dataset.ready = "yes";
}
start();
