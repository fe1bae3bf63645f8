// Markdown: a message's syntax tree, as the hub sends it, into nodes. The hub parses, dom.js makes the nodes; nothing in
// between is a string of markup. What a browser would hide is shown: where a link goes, marks that reorder or vanish.

import { button, copyText, el, toast } from "./dom.js";
import { lowerOf } from "./model.js";

const SAFE = new Set(["http:", "https:", "mailto:"]);

/** The nodes of a tree; `needle` (lower case) is marked where it stands in one piece of text. */
export const drawTree = (tree, needle = "") => drawAll(tree, needle);

const drawAll = (tokens, needle) => (tokens ?? []).flatMap((token) => draw(token, needle));

function draw(token, needle) {
  if (Object.hasOwn(DRAWN, token.type)) return DRAWN[token.type](token, needle);
  return token.children ? drawAll(token.children, needle) : drawText(token.raw ?? "", needle);
}

const wrap = (tag, attrs = {}) => (token, needle) => el(tag, attrs, ...drawAll(token.children, needle));

const DRAWN = {
  text: (token, needle) => drawText(token.raw, needle),
  inline_html: (token, needle) => el("span", { class: "md-html" }, ...drawText(token.raw, needle)),
  block_html: (token, needle) => el("p", { class: "md-html" }, ...drawText(token.raw.trimEnd(), needle)),
  linebreak: () => "\n",
  softbreak: () => "\n",
  strong: wrap("strong"),
  emphasis: wrap("em"),
  strikethrough: wrap("del"),
  codespan: (token, needle) => el("code", {}, ...drawText(token.raw, needle)),
  paragraph: wrap("p"),
  block_text: wrap("p"),
  heading: (token, needle) => el("p", { class: "md-heading", data: { level: String(token.attrs?.level ?? 1) } }, ...drawAll(token.children, needle)), // no <h1>: a peer writes no headings into the page
  thematic_break: () => el("hr"),
  block_quote: wrap("blockquote"),
  list: (token, needle) => el(token.attrs?.ordered ? "ol" : "ul", { start: token.attrs?.ordered && token.attrs.start ? String(token.attrs.start) : null }, ...drawAll(token.children, needle)),
  list_item: wrap("li"),
  task_list_item: (token, needle) => el("li", { class: "md-task" },
    el("span", { class: "md-box", role: "img", "aria-label": token.attrs?.checked ? "done" : "to do" }, token.attrs?.checked ? "☑" : "☐"), ...drawAll(token.children, needle)),
  block_code: drawCode,
  link: drawLink,
  image: drawLink,
  table: (token, needle) => el("div", { class: "md-table", tabindex: "0", role: "group", "aria-label": "Table" }, el("table", {}, ...drawAll(token.children, needle))),
  table_head: (token, needle) => el("thead", {}, el("tr", {}, ...drawAll(token.children, needle))),
  table_body: wrap("tbody"),
  table_row: wrap("tr"),
  table_cell: (token, needle) => el(token.attrs?.head ? "th" : "td", { class: NUMBER.test(plainOf(token.children)) ? "md-number" : null, data: token.attrs?.align ? { align: token.attrs.align } : {}, scope: token.attrs?.head ? "col" : null }, ...drawAll(token.children, needle)),
};

function drawCode(token, needle) {
  const info = token.attrs?.info ?? "";
  const copy = button("Copy", null, { class: "md-copy quiet", onclick: () => copyText(token.raw).then((done) => toast(done ? "Copied the code." : "The browser does not let this page copy.", done ? "info" : "refused")) });
  return el("div", { class: "md-code" },
    el("div", { class: "md-code-head" }, el("span", { class: "md-info" }, ...drawText(info, "")), copy),
    el("pre", { tabindex: "0", role: "group", "aria-label": "Code" }, el("code", {}, ...drawText(token.raw.replace(/\n$/, ""), needle))));
}

/** A link that opens outside of this page, with its true address beside words that say something else. Images are links. */
function drawLink(token, needle) {
  const address = String(token.attrs?.url ?? "");
  const isImage = token.type === "image";
  const words = isImage ? ["image: ", ...(token.children?.length ? drawAll(token.children, needle) : [address])] : drawAll(token.children, needle);
  const title = token.attrs?.title ? ` “${token.attrs.title}”` : "";
  const goal = goalOf(address);
  if (goal === null) return el("span", { class: "md-dead", title: "This console opens http, https and mail links only." }, ...words, ...drawText(` (${address}${title})`, needle));
  const said = plainOf(token.children);
  const isPlain = said === address || said === goal.href || `mailto:${said}` === address;
  const link = el("a", { href: goal.href, target: "_blank", rel: "noopener noreferrer nofollow", title: goal.href }, ...words);
  const beside = `${isPlain && !isImage ? "" : goal.host || goal.pathname}${title}`.trim();
  return beside ? [link, el("span", { class: "md-goal" }, " ", ...drawText(`(${beside})`, ""))] : link;
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

/** Text as nodes: `needle` marked, odd characters named. All of the text stays in, in its order. */
export function drawText(text, needle = "") {
  return split(text, ODD, odd).flatMap((part) => (typeof part === "string" && needle ? marked(part, needle) : part));
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

function marked(text, needle) {
  const lower = lowerOf(text);
  const parts = [];
  let done = 0;
  for (let at = lower.indexOf(needle); at >= 0; at = lower.indexOf(needle, done)) {
    if (at > done) parts.push(text.slice(done, at));
    done = at + needle.length;
    parts.push(el("mark", {}, text.slice(at, done)));
  }
  if (done < text.length) parts.push(text.slice(done));
  return parts;
}
