// Flow: the conversation. Appends in place and never rebuilds; while a reader has scrolled up, nothing moves.
//
// The rows on the page are a window [from, to) of the conversation, at most WINDOW rows. Following, the window slides
// with the newest message. Reading, it only grows at its end, and moves when the reader reaches one of its edges.

import { el, icon, nameTag, setText } from "./dom.js";
import { audienceOf, hueOf, logEnd } from "./model.js";

const WINDOW = 1000; // rows in the DOM
const WINDOW_SLACK = 100; // cut in blocks, so a busy room does not touch both ends on each frame
const CHUNK = 200; // rows brought in when the reader reaches an edge
const EDGE_PX = 300;
const BOTTOM_PX = 8; // closer than this is "at the end"
const TOGETHER_S = 60; // a sender who goes on within this keeps one heading
const CLOCK = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }); // made once: making one costs more than a row
const DAY = new Intl.DateTimeFormat([], { weekday: "long", day: "numeric", month: "long" });
const FULL = new Intl.DateTimeFormat([], { dateStyle: "full", timeStyle: "long" });

const views = new WeakMap(); // root -> view

export function render(root, model) {
  const view = views.get(root) ?? open(root);
  view.model = model;
  const end = logEnd(model);
  if (view.following) slideToEnd(view, end);
  else grow(view, end);
  setText(view.counter, end ? `${end.toLocaleString()} ${end === 1 ? "entry" : "entries"}` : "");
  const unseen = end - view.readTo;
  view.below.hidden = view.following || end === 0;
  if (!view.below.hidden) setText(view.belowText, unseen ? `${unseen.toLocaleString()} new below` : "Back to the latest");
  view.empty.hidden = end > 0;
}

/** Show the newest message and follow from there. */
export function follow(root) {
  const view = views.get(root);
  if (!view) return;
  view.following = true;
  slideToEnd(view, logEnd(view.model));
  view.below.hidden = true;
}

function open(root) {
  const view = {
    scroller: root,
    list: el("ol", { class: "rows" }),
    empty: el("p", { class: "empty" }, "Nobody has spoken yet. What agents say appears here as they say it."),
    below: document.getElementById("new-below"),
    belowText: el("span"),
    counter: document.getElementById("flow-count"),
    model: null,
    from: 0,
    to: 0,
    readTo: 0, // the reader has had the end on the page up to here
    following: true,
    lastTop: 0,
  };
  root.append(view.empty, view.list);
  view.below.append(icon("down"), view.belowText);
  view.below.addEventListener("click", () => { follow(root); root.focus({ preventScroll: true }); });
  root.addEventListener("scroll", () => onScroll(view), { passive: true });
  root.addEventListener("wheel", (event) => { if (event.deltaY < 0) leaveEnd(view); }, { passive: true });
  root.addEventListener("keydown", (event) => { if (["PageUp", "ArrowUp", "Home"].includes(event.key)) leaveEnd(view); });
  new ResizeObserver(() => { if (view.following) pin(view); }).observe(root); // the composer grew, the window was resized
  views.set(root, view);
  return view;
}

// A wheel turned up must win over the next frame's pin to the end, so it counts before the scroll happens.
function leaveEnd(view) {
  if (view.scroller.scrollTop > 0) view.following = false;
}

function onScroll(view) {
  const { scroller, lastTop } = view;
  const top = scroller.scrollTop;
  const toEnd = scroller.scrollHeight - scroller.clientHeight - top;
  view.lastTop = top;
  if (top < lastTop && toEnd > BOTTOM_PX) view.following = false;
  if (top > lastTop && toEnd <= BOTTOM_PX && view.to === logEnd(view.model)) view.following = true;
  if (!view.following) {
    if (toEnd < EDGE_PX && view.to < logEnd(view.model)) still(view, () => { appendRows(view, Math.min(view.to + CHUNK, logEnd(view.model))); cutTop(view, 0); });
    if (top < EDGE_PX && view.from > view.model.logStart) still(view, () => { prependRows(view); cutBottom(view); });
  }
  render(scroller, view.model);
}

function slideToEnd(view, end) {
  if (view.to < end - WINDOW) {
    view.list.replaceChildren();
    view.from = view.to = end - WINDOW;
  }
  const moved = view.to < end;
  appendRows(view, end);
  cutTop(view, WINDOW_SLACK);
  view.readTo = end;
  if (moved || view.lastTop !== view.scroller.scrollTop || !atEnd(view.scroller)) pin(view);
}

function grow(view, end) {
  if (view.to < view.model.logStart) return; // what comes next is forgotten already; the reader keeps what is on the page
  appendRows(view, Math.min(end, view.from + WINDOW)); // below what is being read: nothing moves
}

const atEnd = (scroller) => scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop <= 1;

function pin(view) {
  view.scroller.scrollTop = view.scroller.scrollHeight;
  view.lastTop = view.scroller.scrollTop;
}

/** Change the rows while the one at the top of the page stays where it is. */
function still(view, change) {
  const { scroller, list } = view;
  const edge = scroller.getBoundingClientRect().top;
  const anchor = [...list.children].find((row) => row.getBoundingClientRect().bottom > edge);
  const before = anchor?.getBoundingClientRect().top;
  change();
  if (anchor?.isConnected) scroller.scrollTop += anchor.getBoundingClientRect().top - before;
  view.lastTop = scroller.scrollTop;
}

// ---- the window -------------------------------------------------------------------------------------------------

function entry(view, index) {
  return view.model.log[index - view.model.logStart];
}

function appendRows(view, upTo) {
  if (view.to < view.model.logStart) {
    view.list.replaceChildren(); // the rows after these are forgotten: go on where the log begins
    view.from = view.to = view.model.logStart;
  }
  if (view.to >= upTo) return;
  const rows = [];
  for (; view.to < upTo; view.to += 1) rows.push(row(view.model, entry(view, view.to), entry(view, view.to - 1)));
  view.list.append(...rows);
}

function prependRows(view) {
  const start = Math.max(view.model.logStart, view.from - CHUNK);
  const rows = [];
  for (let index = start; index < view.from; index += 1) rows.push(row(view.model, entry(view, index), entry(view, index - 1)));
  view.list.prepend(...rows);
  view.from = start;
}

function cutTop(view, slack) {
  const over = view.to - view.from - WINDOW;
  if (over <= slack) return;
  for (let n = 0; n < over; n += 1) view.list.firstElementChild.remove();
  view.from += over;
  view.list.firstElementChild.classList.remove("goes-on"); // its heading went with the row above
}

function cutBottom(view) {
  for (; view.to - view.from > WINDOW; view.to -= 1) view.list.lastElementChild.remove();
}

// ---- one row ----------------------------------------------------------------------------------------------------
// Columns: time, origin, who, content. Content has its own column, so no text can imitate what stands in the others.

const ORIGINS = { operator: ["Operator", "gavel"], hub: ["Hub", "hub"] };
const KINDS = { answer: ["answer", "form"], control: ["control", "stop"] };

function row(model, message, previous) {
  if (message.kind === "marker") return el("li", { class: "marker" }, message.content);
  const audience = audienceOf(message);
  const when = new Date(message.ts * 1000);
  const newDay = !previous || dayOf(previous) !== dayOf(message);
  const goesOn = !newDay && isSameTurn(previous, message);
  return el("li", {
    class: goesOn ? "message goes-on" : "message",
    data: {
      seq: String(message.seq), id: message.id, kind: message.kind, origin: message.origin ?? "agent", audience,
      ...(newDay && { day: DAY.format(when) }),
    },
  },
  el("time", { datetime: when.toISOString(), title: FULL.format(when) }, CLOCK.format(when)),
  el("span", { class: "origin" }, originBadge(model, message)),
  el("span", { class: "who" }, sender(model, message), route(message, audience), kindChip(message)),
  el("div", { class: "content", dir: "auto" }, message.content));
}

const dayOf = (message) => new Date(message.ts * 1000).toDateString();

function isSameTurn(a, b) {
  return a.sender === b.sender && a.recipient === b.recipient && a.kind === b.kind && a.origin === b.origin
    && b.origin !== "hub" && b.ts - a.ts < TOGETHER_S;
}

/** The badge says who really spoke, and comes from the hub's `origin` alone. */
function originBadge(model, message) {
  if (!Object.hasOwn(ORIGINS, message.origin)) return el("span", { class: "dot", style: { "--hue": String(hueOf(model, message.sender)) } });
  const [word, iconName] = ORIGINS[message.origin];
  return el("span", { class: "badge", data: { origin: message.origin } }, icon(iconName), word);
}

function sender(model, message) {
  if (message.origin === "operator") return el("span", { class: "name operator" }, "operator");
  if (message.origin === "hub") return el("span", { class: "name hub" }, "hub");
  return nameTag(message.sender, hueOf(model, message.sender));
}

const ROUTES = { broadcast: "all", channel: "hash", direct: "direct" };

function route(message, audience) {
  if (audience === "notice") return null;
  const name = audience === "broadcast" ? "all" : audience === "channel" ? message.recipient.slice(1) : message.recipient;
  return el("span", { class: "route", data: { audience }, title: `${audience} to ${message.recipient}` },
    icon(ROUTES[audience]), el("span", { class: "unseen" }, ` ${audience} to `), el("bdi", {}, name));
}

function kindChip(message) {
  if (!Object.hasOwn(KINDS, message.kind)) return null;
  const [word, iconName] = KINDS[message.kind];
  return el("span", { class: "kind", data: { kind: message.kind } }, icon(iconName), word);
}
