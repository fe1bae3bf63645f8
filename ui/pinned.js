// Pinned: a thread or a lane beside the flow, with a composer of its own that aims there. It shows the newest of it; all
// of it is one click away, in the flow.

import { aimOf as aimAtHead, speechOf } from "./commands.js";
import { announce, button, el, icon, keyed, setText } from "./dom.js";
import { keepIn, keptIn } from "./kept.js";
import { drawRow } from "./message.js";
import { entryAt, indexOf, isOpen, isOperator, lineOf, logEnd, saidAs, threadOf } from "./model.js";
import { targetsOf, wordsOfOnly } from "./only.js";
import { pref } from "./prefs.js";
import { advance, emptyFilter, emptyRows } from "./rows.js";

const KEPT = "caucus.pinned"; // {what, draft}: it survives a reload of the tab
const SHOWN = 120; // rows; what is older is in the flow
const END_PX = 8;
const THREAD = /^t-(?!.* ↔ )/s; // a thread, by the id of a message in it; all else is what only.js shows alone

const views = new WeakMap();

export function render(root, model, send, now, seat) {
  const view = views.get(root) ?? open(root);
  Object.assign(view, { seat, send, model });
  root.hidden = view.what === "";
  if (root.hidden) return;
  choose(view);
  draw(view);
  drawComposer(view);
  giveBack(view);
}

/** Pin a thread ("t-" and an id) or a lane beside the flow; "" takes it away. */
export function pin(root, what) {
  const view = views.get(root);
  if (!view || (view.what === what && !root.hidden)) return;
  if (view.what !== what) Object.assign(view, { what, rows: null, following: true });
  keep(view);
  announce(what ? `Pinned beside the flow: ${wordsOf(view)}` : "Nothing is pinned.");
}

function open(root) {
  const { what = "", draft = "" } = keptIn(sessionStorage, KEPT, {});
  const view = { root, what, model: null, rows: null, of: "", drawn: 0, following: true, opened: new Set(), unfolded: new Set(), sent: new Map(), noticeCount: 0, run: 0 };
  view.title = el("h2", { id: "pinned-title" });
  view.list = el("ol", { class: "rows" });
  view.scroller = el("div", { class: "pinned-rows", tabindex: "0", role: "log", "aria-live": "off", "aria-labelledby": "pinned-title" }, view.list);
  view.scroller.addEventListener("scroll", () => { view.following = view.scroller.scrollHeight - view.scroller.clientHeight - view.scroller.scrollTop <= END_PX; }, { passive: true });
  view.list.addEventListener("click", (event) => onClick(view, event));
  view.target = el("select", { "aria-label": "Send to, from beside the flow" });
  view.text = el("textarea", { rows: "1", dir: "auto", "aria-label": "Message to what is pinned", oninput: () => keep(view), onkeydown: (event) => onKey(view, event) });
  view.text.value = draft;
  view.go = button("Send beside the flow", "send", { class: "strong", onclick: () => say(view) }, true);
  view.note = el("p", { class: "facts", role: "status" });
  view.form = el("div", { class: "pinned-composer" }, view.target, view.text, view.go, view.note);
  root.append(el("div", { class: "pinned-head" }, icon("both"), view.title,
    button("Show it in the flow", "flow", { onclick: () => showInFlow(view) }, true),
    button("Unpin", "close", { class: "unpin", onclick: () => { pin(root, ""); view.seat.go(); document.getElementById("flow").focus({ preventScroll: true }); } }, true)), view.scroller, view.form);
  root.setAttribute("aria-labelledby", "pinned-title");
  views.set(root, view);
  return view;
}

const keep = (view) => keepIn(sessionStorage, KEPT, { what: view.what, draft: view.text.value });

const threadIn = ({ what, model }) => (THREAD.test(what) ? threadOf(model, what.slice(2)) : "");

/** The messages of a thread that this page has, oldest first. */
const messagesOf = (view) => (view.model.threads.get(threadIn(view)) ?? [view.what.slice(2)]).map((id) => entryAt(view.model, indexOf(view.model, id))).filter(Boolean);

function wordsOf(view) {
  if (!THREAD.test(view.what)) return wordsOfOnly(view.what);
  const [first] = messagesOf(view);
  return first ? `thread: ${lineOf(first.content, 60)}` : "a thread that is not on this page";
}

// ---- what is shown ----------------------------------------------------------------------------------------------

/** Choose rows anew when another thing is pinned, or another moment is looked at. */
function choose(view) {
  const thread = threadIn(view);
  const of = `${view.what} ${thread} ${pref("utc")}`;
  if (!view.rows || view.of !== of || view.rowsOf !== view.model) {
    const filter = { ...emptyFilter(), ...(thread ? { thread } : { alone: view.what }) };
    Object.assign(view, { of, rowsOf: view.model, rows: emptyRows(filter, pref("utc"), { opened: view.opened }), drawn: -1, run: view.run + 1 });
  }
}

function draw(view) {
  advance(view.rows, view.model);
  setText(view.title, wordsOf(view));
  if (view.drawn === logEnd(view.model)) return;
  view.drawn = logEnd(view.model);
  const look = { utc: pref("utc"), needle: "", words: [], isUnfolded: ({ id }) => view.unfolded.has(id), isSource: () => false, isEvidence: () => false, isCollapsed: () => false };
  const keyOf = ({ key, goesOn, hidden, message }) => [view.run, key, goesOn, hidden?.length, view.unfolded.has(message?.id)].join();
  keyed(view.list, view.rows.items.slice(-SHOWN), keyOf, (item) => drawRow(view.model, item, look));
  if (view.following) view.scroller.scrollTop = view.scroller.scrollHeight;
}

function showInFlow(view) {
  if (!THREAD.test(view.what)) return view.seat.go("only", view.what);
  return view.seat.go("thread", view.what.slice(2));
}

function onClick(view, event) {
  const { unfold, jump, unfoldBurst } = event.target.closest("[data-unfold], [data-jump], [data-unfold-burst]")?.dataset ?? {};
  if (jump) return view.seat.go("message", saidAs(view.model, Number(jump))?.id ?? null, Number(jump));
  if (!unfold && !unfoldBurst) return undefined;
  if (unfold && !view.unfolded.delete(unfold)) view.unfolded.add(unfold);
  if (unfoldBurst) {
    view.opened.add(Number(unfoldBurst));
    view.rows = null;
  }
  view.drawn = -1;
  view.following = false;
  view.scroller.focus({ preventScroll: true });
  return view.seat.go();
}

// ---- the composer -----------------------------------------------------------------------------------------------

/** Whom a word goes to, and what it answers: {to: [names], reply_to}. While one writes, nobody else's word changes that. */
function aimOf(view) {
  const isFree = !view.aim?.to.length || view.aim.what !== view.what || !view.text.value.trim();
  if (isFree) view.aim = { ...aimNow(view), what: view.what };
  return view.aim;
}

function aimNow(view) {
  if (!THREAD.test(view.what)) return { to: targetsOf(view.what), reply_to: null };
  const said = messagesOf(view).filter(({ seq }) => seq > 0);
  const last = said.findLast(({ origin }) => origin === "agent") ?? said.at(-1);
  if (!last) return { to: [], reply_to: null };
  const isLane = last.recipient === "all" || last.recipient.startsWith("#");
  const to = isLane ? [last.recipient] : last.origin === "operator" ? last.recipient.split(", ") : [last.sender];
  return { to, reply_to: last.seq };
}

function drawComposer(view) {
  const { to } = aimOf(view);
  view.form.hidden = !isOperator(view.model) || document.body.hasAttribute("data-past");
  keyed(view.target, to, (name) => name, (name) => el("option", { value: name }, name === "all" ? "everyone" : name));
  if (!to.includes(view.target.value) && to.length) view.target.value = to[0];
  view.target.hidden = to.length < 2;
  const name = view.target.value;
  const isHere = name === "all" || name in view.model.channels || view.model.peers.some((peer) => peer.name === name);
  view.text.placeholder = to.length === 0 ? "Nobody to speak to" : isHere ? `Say something to ${name === "all" ? "everyone" : name}` : `${name} is not here any more`;
  view.go.disabled = !isOpen(view.model) || !isHere;
}

function onKey(view, event) {
  if (event.isComposing || event.keyCode === 229 || event.key !== "Enter") return;
  if (pref("enterSends") ? event.shiftKey : !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  say(view);
}

function say(view) {
  const text = view.text.value;
  if (!text.trim() || view.go.disabled) return;
  setText(view.note, "");
  if (text.startsWith("/") && !text.startsWith("//")) return void setText(view.note, "Commands go into the composer under the flow. To say it, begin with two slashes.");
  const { to, reply_to } = aimOf(view);
  const target = to.includes(view.target.value) ? view.target.value : to[0];
  const named = aimAtHead(text, view.model);
  if (named && named.to?.join() !== target) return void setText(view.note, `What is written here goes to ${target}, whatever name it begins with: use the composer under the flow, or begin with a blank.`);
  const sent = view.send({ say: speechOf(text), to: target, ...(reply_to && { reply_to }) });
  if (!sent) return;
  view.sent.set(sent.client_id, text);
  if (view.sent.size > 20) view.sent.delete(view.sent.keys().next().value);
  view.text.value = "";
  view.following = true;
  keep(view);
}

/** What the hub refused goes back into an empty field. */
function giveBack(view) {
  const { notices, noticeCount } = view.model;
  const refused = notices.filter(({ n, clientId }) => n > view.noticeCount && view.sent.has(clientId)).at(-1);
  view.noticeCount = noticeCount;
  if (!refused || view.text.value) return;
  view.text.value = view.sent.get(refused.clientId);
  keep(view);
}
