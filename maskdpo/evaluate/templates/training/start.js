/* ---- runs, smoothing, keyboard ---- */
const KEYS = {
  ArrowLeft: ["step before", () => moveStep(-1)],
  ArrowRight: ["next step", () => moveStep(1)],
  Home: ["first step", () => moveStep(-Infinity)],
  End: ["last step", () => moveStep(Infinity)],
  s: ["smoother", () => setSmoothing(Math.min(0.9, state.smoothing + 0.3))],
  S: ["as it is", () => setSmoothing(0)],
  t: ["light or dark", () => toggleTheme()],
  "?": ["this help", () => $("keys").showModal()],
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, dialog")) return;
  if (event.key === "Escape") {
    state.step = null;
    drawCursor();
    return;
  }
  if (!KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key][1]();
});

function setSmoothing(value) {
  state.smoothing = Number(value);
  $("smoothing").value = value;
  drawPanels();
}
function toggleRun(r, shown) {
  shown ? state.hidden.delete(r) : state.hidden.add(r);
  state.step = null;
  drawPanels();
}
function drawBar() {
  const choices = runs.map((run, r) =>
    h(
      "label",
      { class: "check" },
      h("input", { type: "checkbox", checked: true, "data-run": r, onchange: (event) => toggleRun(r, event.target.checked) }),
      key({ colour: r % 6, dashed: false, held: 0 }),
      h("bdi", {}, run.name),
    ),
  );
  $("bar").replaceChildren(
    ...(runs.length > 1 ? choices : []),
    h(
      "label",
      { class: "check" },
      "Smoothing",
      h("input", {
        id: "smoothing", type: "range", min: 0, max: 0.9, step: 0.1, value: 0,
        oninput: (event) => setSmoothing(event.target.value),
      }),
    ),
    h("span", { class: "status" }, h("output", { id: "step", "aria-live": "polite" })),
  );
  $("bar").addEventListener("submit", (event) => event.preventDefault());
}

function start() {
  startTheme();
  startHelp(KEYS, ["back to the last step", null]);
  $("sub").textContent = "Point at a curve, or use ← and →, to read all figures of one step. Training: lines. Held-out pairs: rings.";
  drawBar();
  drawPanels();
  document.documentElement.dataset.ready = "yes";
}
start();
