/* ---- the reference, with the evidence marked in it ---- */
const REFERENCE = 5000; // characters of a passage that are shown at first, where it is longer

/** Where the evidence stands in the passages: case, white space and quotation marks do not count, "..." joins parts. */
function locate(evidence, passages) {
  const plain = (words) => {
    let out = "";
    const from = [];
    for (let i = 0; i < words.length; i++) {
      let c = words[i];
      if (/\s/.test(c)) {
        if (!out || out.endsWith(" ")) continue;
        c = " ";
      } else if (/["'“”‘’«»`]/.test(c)) c = "'";
      else if (/[‐-―−]/.test(c)) c = "-";
      else {
        const low = c.toLowerCase();
        if (low.length === 1) c = low;
      }
      out += c;
      from.push(i);
    }
    return { out, from };
  };
  const parts = evidence
    .slice(0, 4000)
    .split(/\.{3}|…/)
    .map((part) => plain(part).out.replace(/^[\s'.]+|[\s'.]+$/g, ""))
    .filter((part) => part.length > 2);
  const found = new Map();
  if (!parts.length) return found;
  passages.forEach((passage, p) => {
    const { out, from } = plain(passage);
    const spans = parts
      .map((part) => [out.indexOf(part), part.length])
      .filter(([start]) => start >= 0)
      .map(([start, length]) => [from[start], from[start + length - 1] + 1]);
    if (spans.length)
      found.set(
        p,
        spans.sort((a, b) => a[0] - b[0]),
      );
  });
  return found;
}
const nameOf = (source) => clip(source.title || source.document, NAME);

/** Where a passage was found: the document, and the characters of its text. */
function sourceLine(source) {
  const name = source.title ? `${nameOf(source)} · ${clip(source.document, NAME)}` : nameOf(source);
  return h("p", { class: "source", dir: "auto" }, `${name}, characters ${count(source.start)} to ${count(source.end)}`);
}

/** The passages of a reference as a list.

   found: by passage, the spans to mark. sources: where each passage was found, or null. limit: characters of a passage
   to show at first. plain: the nodes of a text that is not marked. */
function reference(passages, found, { sources = [], limit = REFERENCE, plain = (words) => [words] }) {
  const title = h(
    "h4",
    {},
    "Reference",
    passages.length > 1 ? h("small", {}, ` ${plural(passages.length, "passage")}`) : null,
  );
  if (!passages.length) return h("div", { class: "reference-body" }, title, h("p", { class: "hint" }, "None is given."));
  const passageNode = (passage, p) =>
    h(
      "li",
      { class: `passage${found.has(p) ? " has-evidence" : ""}`, dir: "auto" },
      sources[p] ? sourceLine(sources[p]) : null,
      h("div", {}, excerpt(passage, found.get(p) || [], limit, plain)),
    );
  return h(
    "div",
    { class: "reference-body" },
    title,
    h("ol", { class: "passages", tabindex: "0" }, passages.map(passageNode)),
  );
}
function excerpt(passage, spans, limit, plain) {
  const low = passage.length <= limit || !spans.length ? 0 : Math.max(0, spans[0][0] - limit / 3);
  const high = Math.min(passage.length, low + limit);
  const out = [low ? "… " : ""];
  let at = low;
  for (const [begin, end] of spans) {
    if (begin < at || begin >= high) continue;
    out.push(...plain(passage.slice(at, begin)), h("mark", {}, passage.slice(begin, end)));
    at = end;
  }
  out.push(...plain(passage.slice(at, Math.max(at, high))));
  if (low || high < passage.length) {
    out.push(
      " … ",
      h(
        "button",
        { type: "button", class: "link", onclick: (event) => event.target.parentNode.replaceChildren(...plain(passage)) },
        `whole passage (${count(passage.length)} characters)`,
      ),
    );
  }
  return out;
}
