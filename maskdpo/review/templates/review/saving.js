/* ---- the server, and decisions on their way to it ---- */
const TOKEN = "maskdpo-review-token";
let given = "";
function takeToken() {
  if (location.hash.length < 2) return;
  given = location.hash.slice(1);
  remember.set(TOKEN, given);
  window.history.replaceState(null, "", location.pathname); // the address does not keep it
}
takeToken();
/** A new address in the tab of the page does not load it again. */
window.addEventListener("hashchange", () => {
  takeToken();
  queue.run ? send() : location.reload();
});
/** The newest that a page of this server was opened with: after a restart that is another page than this one. */
const token = () => remember.get(TOKEN) || given;

async function ask(path, body) {
  const options = { headers: { "x-maskdpo-token": token() }, cache: "no-store" };
  if (body) Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  const reply = await fetch(path, options);
  const said = await reply.json();
  if (!reply.ok) throw Object.assign(new Error(said.error), { status: reply.status });
  return said;
}

/* Acts that have not arrived outlive the page: each is kept by itself, under the queue that it belongs to, because other
   tabs keep theirs at the same time. */
const shelf = () => `maskdpo-review-unsent ${queue.run} `;
const unkept = new Set(); // ids of pending acts that the browser could not keep
function keep(act) {
  remember.set(shelf() + act.id, JSON.stringify(act)) ? unkept.delete(act.id) : unkept.add(act.id);
}
function forget(id) {
  remember.remove(shelf() + id);
  unkept.delete(id);
}
function takePending() {
  const kept = remember.keys().filter((key) => key.startsWith(shelf()));
  for (const key of kept) {
    const act = readAct(remember.get(key));
    if (act) pending.push({ ...act, id: key.slice(shelf().length) });
    else {
      remember.remove(key);
      tell("A decision that this browser had kept cannot be read, so it was given up.");
    }
  }
  pending.sort((x, y) => x.when - y.when);
}
function readAct(kept) {
  try {
    const act = JSON.parse(kept);
    return queue.items[act.item] && (act.l === null || Object.hasOwn(LABELS, act.l)) ? act : null;
  } catch {
    return null;
  }
}
/** The time of an act, later than those of all acts of this page whatever its clock says: it is their order. */
let latest = 0;
const stamp = () => (latest = Math.max(Date.now(), latest + 1));

let sending = false;
let trouble = "";
const AT_ONCE = 50;
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/** Send all that is pending, in order, until it has arrived; without any, only ask what other pages have done. */
async function send() {
  if (sending) return;
  setSending(true);
  for (let pause = 300; ; pause = Math.min(5000, pause * 2)) {
    try {
      do await exchange(pending.slice(0, AT_ONCE));
      while (pending.length);
      break;
    } catch (error) {
      trouble = error.status ? error.message : "the server does not answer; start the command again if it has ended";
      for (const act of pending) if (unkept.has(act.id)) keep(act);
      drawSaved();
      if (!pending.length) break;
      await wait(pause);
    }
  }
  setSending(false);
}
function setSending(yes) {
  sending = yes;
  document.documentElement.dataset.saved = yes ? "no" : "yes";
}
async function exchange(acts) {
  const now = Date.now();
  const told = acts.map(({ known, item, when, note, ...act }) => ({
    id: act.id,
    act: act.act,
    item,
    start: act.b,
    end: act.e,
    label: act.l,
    note,
    undoes: act.undoes,
    seconds: act.s,
    ago: Math.max(0, (now - when) / 1000),
    known,
  }));
  const reply = await ask("api/acts", { run: queue.run, acts: told, since: confirmed.length });
  trouble = "";
  const own = new Set(acts.map((act) => act.id));
  const foreign = reply.acts.some((act) => !own.has(act.id));
  confirmed.push(...reply.acts);
  const gone = new Set([...reply.saved, ...Object.keys(reply.refused)]);
  pending = pending.filter((act) => !gone.has(act.id));
  gone.forEach(forget);
  changed();
  for (const why of Object.values(reply.refused)) tell(`A decision was not kept: ${why}.`);
  if (foreign || Object.keys(reply.refused).length) draw();
  drawSaved();
}
window.addEventListener("focus", () => queue.run && send());
document.addEventListener("visibilitychange", () => !document.hidden && queue.run && send());
window.addEventListener("beforeunload", (event) => pending.length && event.preventDefault());

const CANNOT_KEEP = "The browser cannot keep them, because its storage is full or forbidden: leave this page open.";
function drawSaved() {
  $("saved").textContent = pending.length
    ? `${count(pending.length)} not saved yet${trouble ? `: ${trouble}` : " …"}${unkept.size ? `. ${CANNOT_KEEP}` : ""}`
    : trouble || "all saved";
  $("saved").classList.toggle("unsaved", Boolean(trouble || unkept.size || pending.length > 5));
}
function tell(words) {
  $("told").textContent = words;
}
