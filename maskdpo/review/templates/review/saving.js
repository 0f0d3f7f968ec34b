/* ---- the server, and decisions on their way to it ---- */
const TOKEN = "maskdpo-review-token";
const given = location.hash.slice(1);
if (given) {
  remember.set(TOKEN, given);
  window.history.replaceState(null, "", location.pathname); // the address does not keep it
}
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

/* Decisions that have not arrived outlive the page: they are kept by the queue that they belong to. */
const shelf = () => `maskdpo-review-unsent ${queue.run}`;
const keepPending = () => remember.set(shelf(), JSON.stringify(pending));
function takePending() {
  try {
    pending = JSON.parse(remember.get(shelf()) || "[]");
  } catch {
    pending = [];
  }
}

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
  keepPending();
  changed();
  for (const [id, why] of Object.entries(reply.refused)) tell(`A decision was not kept, because the sentence ${why}.`);
  if (foreign || Object.keys(reply.refused).length) draw();
  drawSaved();
}
window.addEventListener("focus", () => queue.run && send());
document.addEventListener("visibilitychange", () => !document.hidden && queue.run && send());
window.addEventListener("beforeunload", (event) => pending.length && event.preventDefault());

function drawSaved() {
  $("saved").textContent = pending.length
    ? `${count(pending.length)} not saved yet${trouble ? `: ${trouble}` : " …"}`
    : trouble || "all saved";
  $("saved").classList.toggle("unsaved", Boolean(trouble || pending.length > 5));
}
function tell(words) {
  $("told").textContent = words;
}
