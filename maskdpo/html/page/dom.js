/* What every page has: its data arrives as JSON and leaves as text nodes. No markup is ever made from it; the page's
   policy forbids that too. */

const DATA = JSON.parse(document.getElementById("data").textContent);

/* ---- small helpers ---- */
const SVG = "http://www.w3.org/2000/svg";
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child); // strings become text nodes
  }
  return node;
}
const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const g = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const $ = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en");
const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)}%` : "–");
const clip = (words, limit) => (words.length > limit ? `${words.slice(0, limit)}…` : words);
const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;
const remember = {
  // local storage may be forbidden for local files
  get(key) {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  },
  /** Whether it is kept: the storage may be full, too. */
  set(key, value) {
    try {
      localStorage.setItem(key, value);
      return true;
    } catch {
      return false;
    }
  },
  remove(key) {
    try {
      localStorage.removeItem(key);
    } catch {
      /* then nothing was kept */
    }
  },
  keys() {
    try {
      return Object.keys(localStorage);
    } catch {
      return [];
    }
  },
};

/* ---- panels with a picture ---- */
function plot(title, note, body) {
  return h("figure", { class: "panel plot" }, h("figcaption", {}, title, note ? h("small", {}, note) : null), body);
}
const frame = (label, width, height, ...children) =>
  g("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...children);
const text = (x, y, words, attributes) => g("text", { x, y, ...attributes }, words);
