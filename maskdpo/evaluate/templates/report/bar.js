/* ---- search, filters, sorting ---- */
const topics = new Set(prompts.map((p) => p.topic));
function drawBar() {
  const models = [
    ...new Set(items.flatMap((item) => item.a.map((side) => side && (side.m || "unknown"))).filter(Boolean)),
  ].sort();
  const statuses = new Set(items.flatMap((item) => item.stats.flatMap((s) => (s ? [...s.status] : []))));
  const cut = items.some((item) => item.a.some((side) => side && side.fin === "length"));
  const choose = (id, label, options) =>
    h(
      "label",
      { class: "field" },
      h("span", {}, label),
      h(
        "select",
        {
          id,
          onchange: (event) => {
            state[id] = event.target.value;
            apply();
          },
        },
        options.map(([value, name]) => h("option", { value }, name)),
      ),
    );
  let timer = 0;
  const typed = (name) => (event) => {
    clearTimeout(timer);
    timer = setTimeout(
      () => {
        if (state[name] === event.target.value.trim()) return;
        state[name] = event.target.value.trim();
        apply();
      },
      items.length > 500 ? 160 : 40,
    );
  };
  const fields = [
    h(
      "label",
      { class: "field grow" },
      h("span", {}, "Search questions, answers, reasons"),
      h("input", {
        id: "query",
        type: "search",
        placeholder: 'words or "an exact phrase"',
        autocomplete: "off",
        spellcheck: "false",
        oninput: typed("query"),
        onchange: typed("query"),
      }),
    ),
    topics.size > 1
      ? h(
          "label",
          { class: "field" },
          h("span", {}, "Topic"),
          h("input", {
            id: "topic",
            type: "search",
            list: "topics",
            placeholder: "any",
            autocomplete: "off",
            oninput: typed("topic"),
            onchange: typed("topic"),
          }),
          h(
            "datalist",
            { id: "topics" },
            [...topics].sort().map((t) => h("option", { value: t })),
          ),
        )
      : null,
    models.length > 1 && kind !== "pairs"
      ? choose("model", "Model", [["", "any"], ...models.map((m) => [m, clip(m, NAME)])])
      : null,
    kind !== "pairs" && (statuses.size > 1 || cut)
      ? choose("status", "Status", [
          ["", "any"],
          ...[...statuses].map((s) => [s, `${s}: ${STATUS[s]}`]),
          ...(cut ? [["cut", "answer cut off"]] : []),
        ])
      : null,
    choose(
      "sort",
      "Sort",
      Object.entries(SORTS).map(([key, [name]]) => [key, name]),
    ),
    DATA.gold
      ? h(
          "label",
          { class: "check" },
          h("input", {
            id: "disagree",
            type: "checkbox",
            onchange: (event) => {
              state.disagree = event.target.checked;
              apply();
            },
          }),
          "judge ≠ gold",
        )
      : null,
    h(
      "span",
      { class: "status" },
      h("output", { id: "shown", "aria-live": "polite" }),
      h("button", { type: "button", id: "clear", class: "link", onclick: clearFilters }, "clear"),
    ),
  ];
  $("bar").replaceChildren(...fields.filter(Boolean));
  $("bar").addEventListener("submit", (event) => event.preventDefault());
}
function clearFilters() {
  Object.assign(state, { query: "", topic: "", model: "", status: "", disagree: false });
  state.labels.clear();
  for (const id of ["query", "topic", "model", "status"]) if ($(id)) $(id).value = "";
  if ($("disagree")) $("disagree").checked = false;
  apply();
}

/** The filters live in the address too, so that a view can be passed on. */
function keepInAddress() {
  const parts = new URLSearchParams();
  for (const name of ["query", "topic", "model", "status"]) if (state[name]) parts.set(name, state[name]);
  if (state.labels.size) parts.set("labels", [...state.labels].join(","));
  if (state.disagree) parts.set("disagree", "1");
  if (state.sort !== "file") parts.set("sort", state.sort);
  const hash = parts.toString();
  try {
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  } catch {
    /* not allowed here */
  }
}
function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  for (const name of ["query", "topic", "model", "status", "sort"]) {
    const field = $(name);
    if (!field || !parts.has(name)) continue;
    field.value = parts.get(name);
    if (field.value === parts.get(name))
      state[name] = field.value; // a choice that does not exist leaves the field empty
    else field.value = state[name];
  }
  for (const label of (parts.get("labels") || "").split(","))
    if (Object.hasOwn(LABELS, label)) state.labels.add(label);
  if ($("disagree")) $("disagree").checked = state.disagree = parts.has("disagree");
}
