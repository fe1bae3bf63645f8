// Markdown: a message's syntax tree, as the hub sends it, into nodes. The hub parses, dom.js makes the nodes; nothing in
// between is a string of markup. What a browser would hide is shown: where a link goes, marks that reorder or vanish.

import { button, copyAndTell, el } from "./dom.js";
import { inlineOf } from "./inline.js";
import { lowerOf } from "./model.js";

const SAFE = new Set(["http:", "https:", "mailto:"]);

/** The nodes of a tree; each of `words` (lower case) is marked where it stands in one piece of text. */
export const drawTree = (tree, words = []) => drawAll(tree, words);

/** The nodes of one line: its marks, and no blocks. Where no link may be, as in a button, its marks stay as written. */
export const drawLine = (text, { words = [], hasLinks = true } = {}) => drawTree(inlineOf(text, hasLinks), words);

const lines = new WeakMap(); // node -> the line that it shows

/** Draw a line into `node` only if it differs: what is selected, or has the focus, stays. */
export function setLine(node, text, look) {
  if (lines.get(node) === text) return;
  lines.set(node, text);
  node.replaceChildren(...drawLine(text, look));
}

const drawAll = (tokens, words) => (tokens ?? []).flatMap((token) => draw(token, words));

function draw(token, words) {
  if (Object.hasOwn(DRAWN, token.type)) return DRAWN[token.type](token, words);
  return token.children ? drawAll(token.children, words) : drawText(token.raw ?? "", words);
}

const wrap = (tag, attrs = {}) => (token, words) => el(tag, attrs, ...drawAll(token.children, words));

const DRAWN = {
  text: (token, words) => drawText(token.raw, words),
  inline_html: (token, words) => el("span", { class: "md-html" }, ...drawText(token.raw, words)),
  block_html: (token, words) => el("p", { class: "md-html" }, ...drawText(token.raw.trimEnd(), words)),
  linebreak: () => "\n",
  softbreak: () => "\n",
  strong: wrap("strong"),
  emphasis: wrap("em"),
  strikethrough: wrap("del"),
  codespan: (token, words) => el("code", {}, ...drawText(token.raw, words)),
  paragraph: wrap("p"),
  block_text: wrap("p"),
  heading: (token, words) => el("p", { class: "md-heading", data: { level: String(token.attrs?.level ?? 1) } }, ...drawAll(token.children, words)), // no <h1>: a peer writes no headings into the page
  thematic_break: () => el("hr"),
  block_quote: wrap("blockquote"),
  list: (token, words) => el(token.attrs?.ordered ? "ol" : "ul", { start: token.attrs?.ordered && token.attrs.start ? String(token.attrs.start) : null }, ...drawAll(token.children, words)),
  list_item: wrap("li"),
  task_list_item: (token, words) => el("li", { class: "md-task" },
    el("span", { class: "md-box", role: "img", "aria-label": token.attrs?.checked ? "done" : "to do" }, token.attrs?.checked ? "☑" : "☐"), ...drawAll(token.children, words)),
  block_code: drawCode,
  link: drawLink,
  image: drawLink,
  table: (token, words) => el("div", { class: "md-table", tabindex: "0", role: "group", "aria-label": "Table" }, el("table", {}, ...drawAll(token.children, words))),
  table_head: (token, words) => el("thead", {}, el("tr", {}, ...drawAll(token.children, words))),
  table_body: wrap("tbody"),
  table_row: wrap("tr"),
  table_cell: (token, words) => el(token.attrs?.head ? "th" : "td", { class: NUMBER.test(plainOf(token.children)) ? "md-number" : null, data: token.attrs?.align ? { align: token.attrs.align } : {}, scope: token.attrs?.head ? "col" : null }, ...drawAll(token.children, words)),
};

function drawCode(token, words) {
  const info = token.attrs?.info ?? "";
  const copy = button("Copy", null, { class: "md-copy quiet", onclick: () => copyAndTell(token.raw, "the code") });
  return el("div", { class: "md-code" },
    el("div", { class: "md-code-head" }, el("span", { class: "md-info" }, ...drawText(info)), copy),
    el("pre", { tabindex: "0", role: "group", "aria-label": "Code" }, el("code", {}, ...drawText(token.raw.replace(/\n$/, ""), words))));
}

/** A link that opens outside of this page, with its true address beside words that say something else. Images are links. */
function drawLink(token, words) {
  const address = String(token.attrs?.url ?? "");
  const isImage = token.type === "image";
  const shown = isImage ? ["image: ", ...(token.children?.length ? drawAll(token.children, words) : [address])] : drawAll(token.children, words);
  const title = token.attrs?.title ? ` “${token.attrs.title}”` : "";
  const goal = goalOf(address);
  if (goal === null) return el("span", { class: "md-dead", title: "This console opens http, https and mail links only." }, ...shown, ...drawText(` (${address}${title})`, words));
  const said = plainOf(token.children);
  const isPlain = said === address || said === goal.href || `mailto:${said}` === address;
  const link = el("a", { href: goal.href, target: "_blank", rel: "noopener noreferrer nofollow", title: goal.href }, ...shown);
  const beside = `${isPlain && !isImage ? "" : goal.host || goal.pathname}${title}`.trim();
  return beside ? [link, el("span", { class: "md-goal" }, " ", ...drawText(`(${beside})`))] : link;
}

// A number, with a sign before it and a unit after it, is read as one: "1 200 ms", "+3.5 %", "$ 12,000".
const NUMBER = /^[^\p{L}\d]{0,3}\d[\d\s.,:'’/×–-]{0,24}\S{0,8}$/u;

function goalOf(address) {
  try {
    const goal = new URL(address); // without a base: what is relative would be an address of this hub
    return SAFE.has(goal.protocol) ? goal : null;
  } catch {
    return null;
  }
}

const plainOf = (tokens) => (tokens ?? []).map((token) => token.raw ?? plainOf(token.children)).join("");

// ---- text -------------------------------------------------------------------------------------------------------

// Marks that turn the line around, and marks that nobody sees: each is shown by its number, and kept from its neighbours.
const ODD = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]|[\u00ad\u180e\u200b\u2060-\u2064\ufeff]+/g;

/** Text as nodes: `words` marked, the first of those that begin at a place; odd characters named. All of the text stays in, in its order. */
export function drawText(text, words = []) {
  return split(text, ODD, odd).flatMap((part) => (typeof part === "string" && words.length ? marked(part, words) : part));
}

function odd(found) {
  const code = `U+${found.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  return el("span", { class: "odd", data: { code }, title: `an invisible character, ${code}` }, found);
}

function split(text, pattern, make) {
  const parts = [];
  let done = 0;
  for (const found of text.matchAll(pattern)) {
    if (found.index > done) parts.push(text.slice(done, found.index));
    parts.push(make(found[0]));
    done = found.index + found[0].length;
  }
  if (done < text.length) parts.push(text.slice(done));
  return parts;
}

function marked(text, words) {
  const lower = lowerOf(text);
  const next = words.map((word) => lower.indexOf(word)); // where each stands next
  const parts = [];
  let done = 0;
  for (;;) {
    words.forEach((word, one) => { if (next[one] >= 0 && next[one] < done) next[one] = lower.indexOf(word, done); });
    const one = next.reduce((best, at, index) => (at >= 0 && (best < 0 || at < next[best]) ? index : best), -1);
    if (one < 0) break;
    if (next[one] > done) parts.push(text.slice(done, next[one]));
    done = next[one] + words[one].length;
    parts.push(el("mark", {}, text.slice(next[one], done)));
  }
  if (done < text.length) parts.push(text.slice(done));
  return parts;
}
