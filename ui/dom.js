// The only file that creates nodes. Text from the room enters the page here, always as text:
// there is no markup parser in this console, so a peer can't write into the page around its message.

/** Make an element. `attrs`: on… = listener (a function), data = dataset, style = properties, booleans = present or absent. */
export function el(tag, attrs = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attrs)) setAttr(node, name, value);
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function setAttr(node, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (typeof value === "function") node.addEventListener(name.slice(2), value);
  else if (name === "data") Object.assign(node.dataset, value);
  else if (name === "style") for (const [property, text] of Object.entries(value)) node.style.setProperty(property, text); // CSSOM: allowed by style-src 'self'
  else node.setAttribute(name, value === true ? "" : value);
}

// Strokes on a 24 x 24 grid. Shapes differ, so that no state is told by colour alone.
const ICONS = {
  play: "M8 5.5v13l10.5-6.5z",
  pause: "M8 5v14M16 5v14",
  stop: "M8.3 3.5h7.4l4.8 4.8v7.4l-4.8 4.8H8.3l-4.8-4.8V8.3zM9 12h6",
  reset: "M4.5 12a7.5 7.5 0 1 0 2.4-5.5M4.5 4v4.5H9",
  ear: "M7 9.5a5 5 0 0 1 10 0c0 4-3.5 4.2-3.5 7.6A3 3 0 0 1 8 18.6M9.8 10a2.2 2.2 0 0 1 4.4 0c0 1.2-.9 1.6-1.5 2.3",
  deaf: "M4 4l16 16M8 6.2A5 5 0 0 1 17 9.5c0 1.4-.4 2.4-1 3.3M13.6 16.5A3 3 0 0 1 8 18.6M7 9.5v.6",
  pulse: "M3 12h4l2.5-6.5 5 13L17 12h4",
  kick: "M14 4.5H6v15h8M11 12h10M17.5 8.5 21 12l-3.5 3.5",
  send: "M4 12 20.5 4.5 15 20l-3.5-6.5zM11.5 13.5 20.5 4.5",
  all: "M4 10v4h3.5L14 18V6l-6.5 4zM17 9a4 4 0 0 1 0 6M19.5 6.5a7.5 7.5 0 0 1 0 11",
  hash: "M9.5 4 7.5 20M16.5 4l-2 16M4.5 9h16M3.5 15h16",
  direct: "M4 12h15M13.5 6.5 19 12l-5.5 5.5",
  stick: "M12 3.5a3 3 0 0 1 3 3v5a3 3 0 0 1-6 0v-5a3 3 0 0 1 3-3zM6 11.5a6 6 0 0 0 12 0M12 17.5v3",
  gavel: "M13.5 4.5 19.5 10.5M9.5 8.5l6 6M11.5 6.5l6 6-2 2-6-6zM11.5 11.5 4.5 18.5M12 20.5h8",
  hub: "M12 12m-3 0a3 3 0 1 0 6 0 3 3 0 1 0-6 0M12 9V3.5M12 20.5V15M9 12H3.5M20.5 12H15",
  form: "M6 3.5h12v17H6zM9.5 8.5h5M9.5 12.5h5M9.5 16.5h2.5",
  flow: "M4 6h16M4 12h11M4 18h14",
  peers: "M9 11.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM3 20c0-3.5 2.5-5.5 6-5.5s6 2 6 5.5M16 5a3.3 3.3 0 0 1 0 6.3M18 14.8c1.9.8 3 2.6 3 5.2",
  help: "M9 9a3 3 0 1 1 4.2 2.7c-.8.4-1.2 1-1.2 2M12 17.3v.2M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z",
  auto: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 3v18M12 8h6.5M12 12h9M12 16h6.5",
  light: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4",
  dark: "M20 14.5A8.5 8.5 0 1 1 9.5 4a7 7 0 0 0 10.5 10.5z",
  download: "M12 4v11M7.5 11 12 15.5 16.5 11M5 20h14",
  close: "M6 6l12 12M18 6 6 18",
  check: "M5 12.5 10 17.5 19.5 7",
  down: "M12 5v14M6 13l6 6 6-6",
  settings: "M4 7h9M17 7h3M15 7a2 2 0 1 0 0-.01M4 17h3M11 17h9M9 17a2 2 0 1 0 0-.01",
  bell: "M6 16.5c1.3-1.3 1.5-3 1.5-6a4.5 4.5 0 0 1 9 0c0 3 .2 4.7 1.5 6zM10 19.5a2 2 0 0 0 4 0",
  orders: "M5 6l1.5 1.5L9 4.5M12 6h7M5 12.5l1.5 1.5L9 11M12 12.5h7M5 19l1.5 1.5L9 17.5M12 19h7",
  loop: "M4 12a6 6 0 0 1 6-6h8M15 3l3 3-3 3M20 12a6 6 0 0 1-6 6H6M9 21l-3-3 3-3",
  bolt: "M13 3 5.5 13.5H11L10 21l8-11h-5.5z",
  mention: "M15.5 12a3.5 3.5 0 1 1-7 0 3.5 3.5 0 0 1 7 0zM15.5 8.5v5a2.3 2.3 0 0 0 4.6 0V12a8.1 8.1 0 1 0-3.2 6.4",
  book: "M12 6.5C10 5 7.5 4.5 4 4.5v13.5c3.5 0 6 .5 8 2 2-1.5 4.5-2 8-2V4.5c-3.5 0-6 .5-8 2zM12 6.5V20",
  back: "M14.5 5.5 8 12l6.5 6.5",
  next: "M9.5 5.5 16 12l-6.5 6.5",
  more: "M5.5 12v.01M12 12v.01M18.5 12v.01",
  mail: "M3.5 6h17v12.5h-17zM3.5 7l8.5 6.5L20.5 7",
  copy: "M9 9h10.5v11.5H9zM15 9V4H4.5v11.5H9",
  link: "M10 14a4 4 0 0 0 5.7 0l3.5-3.5a4 4 0 0 0-5.7-5.7L12 6.3M14 10a4 4 0 0 0-5.7 0l-3.5 3.5a4 4 0 0 0 5.7 5.7l1.5-1.5",
  source: "M8.5 7 3.5 12l5 5M15.5 7l5 5-5 5",
  search: "M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM15.3 15.3 20.5 20.5",
  filter: "M4 5.5h16L14 13v6l-4-2v-4z",
  both: "M3.5 5h17v14h-17zM14 5v14M6.5 9h4.5M6.5 12h4.5M6.5 15h3",
  lanes: "M5 3.5v17M12 3.5v17M19 3.5v17M5 8h7M12 13h7M5 17.5h14",
  up: "M12 19V5M6 11l6-6 6 6",
  replay: "M4.5 12a7.5 7.5 0 1 0 2.4-5.5M4.5 4v4.5H9M12 8v4.5l3 1.8",
  reply: "M9.5 6 4 11.5 9.5 17M4 11.5h9a6.5 6.5 0 0 1 6.5 6.5",
  answered: "M4 4.5h16v11.5h-9.5L6 20v-4H4zM8.5 10l2.5 2.5 4.5-5",
  doublecheck: "M2.5 12.5 7 17.5 15.5 7M11.5 16.5l1 1L21.5 7",
  thread: "M5 4v16M5 8h8M9.5 14.5h10M9.5 8v6.5",
  nudge: "M4 12h3l2-7 3 14 2.5-9 1.5 2h4",
  wait: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 7v5.5l3.5 2",
  gauge: "M4 17a8.5 8.5 0 1 1 16 0M12 14l4-5M12 14v.2",
  eye: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12zM12 14.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5z",
};
const SVG = "http://www.w3.org/2000/svg";

function drawn(tag, attrs, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attrs)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** A decorative icon: the words beside it, or the label around it, carry the meaning. */
export const icon = (name) => drawn("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" }, drawn("path", { d: ICONS[name] }));

/** Give every `data-icon` element of the static page its icon, or change the one it has. */
export function setIcon(node, name) {
  node.querySelector("svg")?.remove();
  node.prepend(icon(name));
}

/** Set an attribute only if it differs. */
export function setAttribute(node, name, text) {
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

/** Write `text` only if it differs: an unchanged node costs no layout and keeps a reader's selection. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A button with an icon; `word` is shown, or spoken only when `quiet`. */
export function button(word, iconName, attrs = {}, quiet = false) {
  const { class: extra = "", ...rest } = attrs;
  const named = quiet ? { "aria-label": word, title: word } : {};
  return el("button", { type: "button", class: `${quiet ? "icon-button" : ""} ${extra}`.trim(), ...named, ...rest },
    iconName && icon(iconName), !quiet && el("span", {}, word));
}

/** A peer's name in its colour, isolated so that a right-to-left name turns nothing around it. */
export function nameTag(name, hue) {
  return el("bdi", { class: "name", title: name, style: { "--hue": String(hue) } }, name);
}

/**
 * Make `parent` hold one node per item, keyed: a node lives as long as its key, so whatever is typed,
 * focused or selected inside survives every frame from the hub. `create(item)` makes it, `update(node, item)` refreshes it.
 */
const nodesByKey = new WeakMap(); // parent -> Map(key -> node)
export function keyed(parent, items, keyOf, create, update = () => {}) {
  const old = nodesByKey.get(parent) ?? new Map();
  const now = new Map();
  const focused = document.activeElement;
  for (const item of items) {
    const key = keyOf(item);
    now.set(key, old.get(key) ?? create(item));
  }
  for (const [key, node] of old) if (!now.has(key)) node.remove();
  let cursor = parent.firstChild;
  for (const node of now.values()) {
    if (node === cursor) cursor = cursor.nextSibling;
    else parent.insertBefore(node, cursor);
  }
  for (const item of items) update(now.get(keyOf(item)), item);
  nodesByKey.set(parent, now);
  if (focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true });
}

const CHART_W = 120;
const CHART_H = 28;

/** A small line chart, decorative: the figure beside it is said in words. `drawChart` gives it its points. */
export const chart = (label) => drawn("svg", { viewBox: `0 0 ${CHART_W} ${CHART_H}`, preserveAspectRatio: "none", class: "chart", role: "img", "aria-label": label },
  drawn("path", { class: "chart-area" }), drawn("path", { class: "chart-line" }));

/** Draw `points`, [x 0..1, value 0..max], from left to right. */
export function drawChart(svg, points, max) {
  const at = ([x, value]) => `${(x * CHART_W).toFixed(1)} ${(CHART_H - 1 - (max ? value / max : 0) * (CHART_H - 3)).toFixed(1)}`;
  const line = points.map((point, index) => `${index ? "L" : "M"}${at(point)}`).join("");
  const [area, stroke] = svg.children;
  const closed = points.length ? `${line}L${(points.at(-1)[0] * CHART_W).toFixed(1)} ${CHART_H}L${(points[0][0] * CHART_W).toFixed(1)} ${CHART_H}Z` : "";
  if (stroke.getAttribute("d") === line) return;
  stroke.setAttribute("d", line);
  area.setAttribute("d", closed);
}

/** Mark option `at` of the list that a field works, which keeps the keys. */
export function markOption(field, list, at) {
  [...list.children].forEach((node, index) => node.setAttribute("aria-selected", String(index === at)));
  const marked = list.children[at];
  if (marked) field.setAttribute("aria-activedescendant", marked.id);
  else field.removeAttribute("aria-activedescendant");
  marked?.scrollIntoView({ block: "nearest" });
}

/** Show `text` in place of an empty list. */
export function emptyNote(text) {
  return el("p", { class: "empty" }, text);
}

const byId = (id) => document.getElementById(id);

/** Ask once, saying what will happen; true when the operator agrees. A second question while one is open is a no. */
export function ask({ title, text, verb, tone = "danger" }) {
  const dialog = byId("confirm");
  if (dialog.open) return Promise.resolve(false);
  setText(byId("confirm-title"), title);
  setText(byId("confirm-text"), text);
  setText(byId("confirm-yes"), verb);
  byId("confirm-yes").dataset.tone = tone;
  dialog.returnValue = "";
  dialog.showModal();
  byId("confirm-no").focus(); // Enter in haste changes nothing
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Wire the confirm dialog's buttons; called once. (No method="dialog": form-action is 'none'.) */
export function wireAsk() {
  byId("confirm-yes").addEventListener("click", () => byId("confirm").close("yes"));
  byId("confirm-no").addEventListener("click", () => byId("confirm").close(""));
}

const TOASTS_MAX = 4;
const UNDO_MS = 12_000; // time to see what was done, and to think better of it
const TOAST_MS = { info: 6_000, refused: 12_000 }; // a refusal must be read, news may pass

/** Say something in the corner for some seconds; `tone` is "info" or "refused"; `undo`, if it can be taken back by a button. Give what takes it away. */
export function toast(text, tone = "info", undo = null) {
  const box = byId("toasts");
  const note = el("div", { class: "toast", data: { tone } },
    icon(tone === "refused" ? "stop" : "check"), el("p", {}, text),
    undo && button("Undo", null, { class: "toast-undo quiet", onclick: () => { note.remove(); undo(); } }),
    button("Dismiss", "close", { onclick: () => note.remove() }, true));
  box.append(note);
  while (box.children.length > TOASTS_MAX) box.firstElementChild.remove();
  setTimeout(() => note.remove(), undo ? UNDO_MS : TOAST_MS[tone]);
  return () => note.remove();
}

/** Tell a screen reader one sentence: for changes that must not be missed, never for each message. */
export function announce(text) {
  setText(byId("announcer"), text);
}

/** Let the browser save `blob` under `name`. */
export function saveAs(blob, name) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000); // the download has begun long before
}

/** Put `text` on the clipboard, and say whether that was done; `what` it is: "the message". */
export async function copyAndTell(text, what) {
  if (await copyText(text)) toast(`Copied ${what}.`);
  else toast("The browser does not let this page copy.", "refused");
}

/** Put `text` on the clipboard; false where the browser does not let this page, as over plain http from another machine. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const box = el("textarea", { class: "unseen", "aria-hidden": "true", tabindex: "-1" });
    const focused = document.activeElement;
    box.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(box);
    box.select();
    const isDone = document.execCommand("copy");
    box.remove();
    focused?.focus({ preventScroll: true });
    return isDone;
  }
}
