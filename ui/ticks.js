// Ticks: one calm mark on each message, and behind it each recipient. A tick changes with the hub's survey only, in
// place: its row is not drawn anew, so nothing flickers and what is marked in a row stays marked.

import { el, icon, keyed, nameTag, setIcon, setText } from "./dom.js";
import { ageText, entryAt, hueOf, indexOf, isHeld, lineOf } from "./model.js";
import { MEANINGS, fatesOf, tickOf } from "./receipts.js";

const ICONS = { lost: "close", queued: "wait", held: "pause", fetched: "check", acknowledged: "doublecheck", answered: "answered" };
const HOVER_MS = 250; // a pointer that only passes opens nothing
const LEAVE_MS = 150; // the way from the mark to the list

/** The mark of one message; empty until the hub tells. Reached with Enter on its row. */
export function drawTick(model, message) {
  if (!(message.seq > 0)) return null;
  const tick = el("button", { type: "button", class: "tick", tabindex: "-1", "aria-haspopup": "dialog", hidden: true }, icon("wait"), el("span"));
  refreshTick(tick, model, message);
  return tick;
}

/** Show what is known now; nothing is touched that stays the same. */
export function refreshTick(tick, model, message) {
  const found = tickOf(model.receipts.get(message.id), isHeld(model, message));
  if (!found) {
    if (!tick.hidden) tick.hidden = true;
    return;
  }
  if (tick.dataset.state !== found.state) {
    tick.dataset.state = found.state;
    setIcon(tick, ICONS[found.state]);
  }
  setText(tick.lastElementChild, found.text);
  if (tick.hidden) tick.hidden = false;
}

// ---- who has it -------------------------------------------------------------------------------------------------

/** One box serves all ticks: `seat.ask(frame)` asks the hub for the recipients of a message to many. */
export function openFates(root) {
  const view = { root, model: null, seat: null, id: null, timer: null, isHovered: false,
    at: null, size: "", // where its tick stood, and how large it was when it was placed
    asked: null, // for which counts the hub was asked
    pointer: "", // where it was last: rows that move under a still one open nothing
    title: el("h2", { id: "fates-title" }), of: el("p", { class: "facts fates-of" }), list: el("ul", { class: "fates-list" }), more: el("p", { class: "facts" }) };
  view.box = el("div", { id: "fates", class: "drop", popover: "auto", role: "dialog", "aria-labelledby": "fates-title", tabindex: "-1" },
    view.title, view.of, view.list, view.more);
  document.body.append(view.box);
  root.addEventListener("pointermove", (event) => onPointer(view, event), { passive: true });
  root.addEventListener("pointerleave", () => leaveTick(view));
  root.addEventListener("click", (event) => { const tick = event.target.closest?.(".tick"); if (tick) show(view, tick, false); });
  root.addEventListener("wheel", () => view.isHovered && hide(view), { passive: true });
  view.box.addEventListener("pointerenter", () => clearTimeout(view.timer));
  view.box.addEventListener("pointerleave", () => leaveTick(view));
  view.box.addEventListener("toggle", () => { if (!view.box.matches(":popover-open")) Object.assign(view, { id: null, isHovered: false }); });
  return view;
}

/** What is open by a click or a key stays, whatever the pointer passes. */
function onPointer(view, event) {
  const pointer = `${event.clientX} ${event.clientY}`;
  if (event.pointerType === "touch" || pointer === view.pointer) return;
  view.pointer = pointer;
  const tick = event.target.closest?.(".tick");
  if (!tick) return leaveTick(view);
  clearTimeout(view.timer);
  const id = tick.closest(".message").dataset.id;
  const rests = () => tick.isConnected && tick.closest(".message").dataset.id === id && tick.matches(":hover");
  if (view.id === null || (view.isHovered && view.id !== id)) view.timer = setTimeout(() => rests() && show(view, tick, true), HOVER_MS);
}

function leaveTick(view) {
  clearTimeout(view.timer);
  if (view.isHovered) view.timer = setTimeout(() => hide(view), LEAVE_MS);
}

const hide = (view) => view.box.matches(":popover-open") && view.box.hidePopover();

/** Show who has the message of this row; true if there is something to tell. */
export function showFates(view, row) {
  const tick = row?.querySelector(".tick:not([hidden])");
  if (tick) show(view, tick, false);
  return Boolean(tick);
}

function show(view, tick, isHovered) {
  if (!tick.isConnected) return;
  clearTimeout(view.timer);
  Object.assign(view, { id: tick.closest(".message").dataset.id, isHovered, at: tick.getBoundingClientRect(), size: "", asked: null });
  if (!view.box.matches(":popover-open")) view.box.showPopover();
  view.box.scrollTop = 0;
  refreshFates(view, Date.now());
  if (!isHovered) view.box.focus({ preventScroll: true });
}

const LEAST_PX = 96; // a heading and two lines; what does not fit is scrolled

/** Beside the tick, whole in the window and below the brakes, whatever its size has become. */
function place(view) {
  const { box, at } = view;
  const size = `${box.offsetWidth} ${box.scrollHeight}`;
  if (view.size === size) return;
  view.size = size;
  box.style.setProperty("max-height", "");
  const [least, most] = [document.querySelector(".top").getBoundingClientRect().bottom + 4, innerHeight - 8];
  const [above, below] = [at.top - 4 - least, most - at.bottom - 4];
  const isBelow = below >= Math.min(box.offsetHeight, above);
  const room = Math.max(LEAST_PX, isBelow ? below : above);
  if (box.offsetHeight > room) box.style.setProperty("max-height", `${room}px`);
  const height = box.offsetHeight;
  box.style.setProperty("left", `${Math.max(8, Math.min(at.right - box.offsetWidth, innerWidth - box.offsetWidth - 8))}px`);
  box.style.setProperty("top", `${Math.max(Math.min(least, most - height), Math.min(isBelow ? at.bottom + 4 : at.top - 4 - height, most - height))}px`);
}

/** Ages count on; who has it changes with the survey, and of a message to many the hub is asked again then. */
export function refreshFates(view, now) {
  const message = view.id === null ? undefined : entryAt(view.model, indexOf(view.model, view.id));
  if (!message) return;
  const receipt = view.model.receipts.get(view.id);
  if (receipt && !receipt.who && view.asked !== receipt && view.seat.ask({ receipt: message.seq })) view.asked = receipt;
  const { lines, more, isKnown } = fatesOf(view.model, message, now);
  setText(view.title, tickOf(receipt, isHeld(view.model, message))?.text ?? "");
  setText(view.of, `Message ${message.seq} of ${message.origin === "agent" ? message.sender : message.origin}: ${lineOf(message.content, 80)}`);
  keyed(view.list, lines, ({ name }) => name, (line) => fateLine(view.model, line), refreshLine);
  setText(view.more, isKnown ? (more ? `and ${more.toLocaleString()} more` : "") : more ? "Asking the hub…" : "The hub does not follow this message any more.");
  place(view);
}

function fateLine(model, { name }) {
  return el("li", { class: "fate" }, icon("wait"), nameTag(name, hueOf(model, name)), el("span", { class: "fate-words" }));
}

function refreshLine(node, { state, why, age }) {
  if (node.dataset.state !== state) {
    node.dataset.state = state;
    setIcon(node, ICONS[state] ?? "help");
  }
  const since = age === null ? "" : state === "queued" || state === "held" ? ` for ${ageText(age)}` : `, seen ${ageText(age)} ago`;
  setText(node.lastElementChild, `${state}: ${why || MEANINGS[state] || ""}${since}`);
}
