/* ---- drawing all, keys, and the start ---- */
let again = 0; // the next try to load a sentence
function draw() {
  if (!queue.run) return;
  if (!isOpen(at)) at = Math.max(0, openFrom(at));
  const place = here();
  drawPace();
  $("done").hidden = Boolean(place);
  $("desk").hidden = $("decide").hidden = !place || !answers.has(place.a);
  if (!place) return drawDone();
  const { a, item, b, e } = place;
  if (!answers.has(a)) {
    clearTimeout(again);
    const cannot = "The next sentence cannot be loaded yet";
    load(a).then(
      () => {
        if ($("told").textContent.startsWith(cannot)) tell("");
        draw();
      },
      (error) => {
        tell(`${cannot}: ${error.status ? error.message : "the server does not answer"}.`);
        again = setTimeout(draw, 1500);
      },
    );
    return;
  }
  const key = `${item}:${b}:${e}`;
  if (key !== clock.place) {
    Object.assign(clock, { ms: 0, last: performance.now(), place: key });
    noted = "";
    splitting = null;
    $("now").textContent = `Sentence: ${part(a, b, e)}`;
  }
  $("note").value = noted;
  $("splitting").hidden = !splitting;
  $("actions").hidden = Boolean(splitting);
  drawAnswer(place);
  drawJudge(place);
  drawReference(place);
  loadAhead();
}

const LAST = 20; // decisions that the pace is the median of
function drawPace() {
  const left = queue.items.filter((_, i) => isOpen(i)).length;
  const total = queue.items.length;
  const known = [...confirmed, ...pending].filter((act) => act.act === "label" && act.s).slice(-LAST);
  const times = known.map((act) => act.s).sort((x, y) => x - y);
  const median = times.length ? times[Math.floor(times.length / 2)] : 0;
  const minutes = Math.ceil((left * median) / 60);
  $("progress").max = total;
  $("progress").value = total - left;
  $("count").textContent = `${count(total - left)} of ${count(total)}`;
  $("speed").textContent =
    times.length < 3 ? "" : `${median.toFixed(1)} s a sentence${left ? `, about ${plural(minutes, "minute")} left` : ""}`;
}
function drawDone() {
  const acts = [...standing().values()].flat();
  const row = (name, n) => h("div", {}, h("dt", {}, name), h("dd", {}, count(n)));
  $("done").replaceChildren(
    h("h3", {}, "All sentences of this queue are decided."),
    h(
      "dl",
      {},
      CHOICES.map(([, label]) => row(LABELS[label].name, acts.filter((act) => act.l === label).length)),
      row("Skipped", acts.filter((act) => act.act === "skip").length),
    ),
    h("button", { type: "button", class: "plain", onclick: undo }, "Undo the last one"),
    h("p", { class: "hint" }, "End the command with Ctrl-C when all is saved."),
  );
  $("now").textContent = "All sentences of this queue are decided.";
}

const SPLIT_KEYS = { ArrowLeft: () => moveSplit(-1), ArrowRight: () => moveSplit(1), Enter: split, Escape: stopSplit };
const KEYS = Object.fromEntries([
  ...CHOICES.map(([key, label]) => [key, [`${LABELS[label].name}: ${LABELS[label].says}`, () => decide(label)]]),
  ...ACTIONS.map(([key, name, action]) => [key, [name, action]]),
  ["ArrowDown", ["the reference down", () => scrollReference(1)]],
  ["ArrowUp", ["the reference up", () => scrollReference(-1)]],
  ["t", ["light or dark", toggleTheme]],
  ["?", ["this help", () => $("keys").showModal()]],
]);
function scrollReference(step) {
  const box = $("reference").querySelector(".passages");
  if (box) box.scrollTop += step * 60;
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.repeat && !event.key.startsWith("Arrow")) return; // a key that is held is one decision
  const field = event.target.closest?.("input, textarea, dialog");
  if (field) {
    if (field.id === "note" && (event.key === "Enter" || event.key === "Escape")) {
      event.preventDefault();
      field.blur();
    }
    return;
  }
  const onButton = event.key === "Enter" && event.target.closest?.("button");
  const action = splitting ? SPLIT_KEYS[event.key] : KEYS[event.key]?.[1];
  if (!action || onButton) return;
  event.preventDefault();
  action();
});

async function start() {
  startTheme();
  startHelp(KEYS, ["leave the note, do not split", "Underlined in the reference: words of the sentence."]);
  drawButtons();
  try {
    const { acts, ...told } = await ask("api/start");
    queue = told;
    confirmed.push(...acts);
  } catch (error) {
    tell(error.status ? `${error.message[0].toUpperCase()}${error.message.slice(1)}.` : "The server does not answer.");
    document.documentElement.dataset.ready = "failed";
    return;
  }
  takePending();
  changed();
  $("sub").append(
    h("bdi", {}, queue.reviewer),
    `: ${plural(queue.items.length, "sentence")} out of ${count(queue.of)}, queue ${queue.queue}`,
  );
  const first = openFrom(0);
  at = Math.max(0, first);
  if (first >= 0) await load(queue.items[first][0]);
  setInterval(tick, 1000);
  draw();
  drawSaved();
  send();
  document.documentElement.dataset.ready = "yes";
}
start();
