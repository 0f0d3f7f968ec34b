/* ---- what labels look like, and where characters are ---- */
const LABELS = {
  no_hallucination: { name: "Right", group: "right", mark: "✓", says: "every claim is supported by the reference" },
  contradictory: { name: "Contradicted", group: "wrong", mark: "✕", says: "wrong: the reference says otherwise" },
  unverifiable: {
    name: "Not in the reference",
    group: "wrong",
    mark: "?",
    says: "wrong: the reference neither supports nor contradicts it",
  },
  hallucination: {
    name: "Hallucination",
    group: "wrong",
    mark: "!",
    says: "wrong, the source does not say in which way",
  },
  no_fact: {
    name: "Nothing to check",
    group: "no_fact",
    mark: "–",
    says: "an opinion, a question, a transition",
  },
  unsure: {
    name: "Unsure",
    group: "none",
    mark: "≈",
    says: "the judge has answered, but too weakly for a label",
  },
  fragment: {
    name: "Fragment",
    group: "fragment",
    mark: "✂",
    says: "torn, at the end of an answer that was cut off: it is not judged, does not train, and is in no count",
  },
  none: { name: "Not judged", group: "none", mark: "∅", says: "there is no verdict; the status says why" },
};
const NAME = 160; // characters of a name: an id, a topic, a model, a document
const GROUPS = { right: "Right", wrong: "Wrong", no_fact: "Nothing to check", none: "Not judged" };
const STATUS = {
  ok: "judged",
  unsure:
    "the judge has answered, but too weakly for a label, by its calibration or a least confidence. This is no failure, and asking again does not help",
  fragment: "torn, at the end of an answer that was cut off: no judge was asked",
  no_reference: "the prompt had no reference to compare with: no judge was asked",
  refused: "the judge refused",
  parse_error: "the verdict could not be read",
  api_error: "the call failed",
  truncated: "cut off",
};
const labelOf = (s) => s.l || (s.st === "unsure" || s.st === "fragment" ? s.st : "none");
const groupOf = (label) => LABELS[label || "none"].group;

function meter(value, label = "") {
  const bar = h("i", {});
  bar.style.width = `${100 * value}%`;
  return h("span", { class: `meter ${label}`, "aria-hidden": "true" }, bar);
}

/** The direction of an answer, by its first letter. dir=auto would not see into sentences, which are isolated. */
function direction(text) {
  const letter = text.match(/\p{L}/u);
  return letter && /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u.test(letter[0])
    ? "rtl"
    : "ltr";
}

/** Code point offsets to UTF-16 offsets. Where no character needs two units they are the same. */
function pointMap(text) {
  if (!/[\ud800-\udfff]/.test(text)) return { at: (i) => i, length: text.length };
  const units = [];
  let unit = 0;
  for (const character of text) {
    units.push(unit);
    unit += character.length;
  }
  units.push(unit);
  return { at: (i) => units[Math.min(i, units.length - 1)], length: units.length - 1 };
}
