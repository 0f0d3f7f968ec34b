/* ---- light or dark ---- */
function dark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}
function toggleTheme() {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
  remember.set("maskdpo-theme", document.documentElement.dataset.theme);
  themeIcon();
}
function themeIcon() {
  $("theme").textContent = dark() ? "☀" : "☾";
}
function startTheme() {
  const theme = remember.get("maskdpo-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  themeIcon();
  $("theme").addEventListener("click", toggleTheme);
}

/* ---- keyboard ---- */
/** The list of keys that "?" shows. ``keys`` is {key: [what it does, or null to leave it out, action]}. */
function startHelp(keys, [escape, hint]) {
  const names = { ArrowRight: "→", ArrowLeft: "←", ArrowDown: "↓", ArrowUp: "↑" };
  $("keys").replaceChildren(
    h("h2", {}, "Keyboard"),
    h(
      "dl",
      {},
      Object.entries(keys)
        .filter(([, [what]]) => what)
        .map(([key, [what]]) => [h("dt", {}, h("kbd", {}, names[key] || key)), h("dd", {}, what)]),
      h("dt", {}, h("kbd", {}, "Esc")),
      h("dd", {}, escape),
    ),
    hint ? h("p", { class: "hint" }, hint) : "",
    h("form", { method: "dialog" }, h("button", { class: "plain" }, "Close")),
  );
  $("help").addEventListener("click", () => $("keys").showModal());
}
