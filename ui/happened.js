// Happened: the card that answers "what happened?" when somebody comes back. It stays until it is dismissed; a link in it
// folds it into one line, so that what it leads to is seen.

import { absenceOf, beginOf, isFresh } from "./absence.js";
import { announce, button, el, icon, setText } from "./dom.js";
import * as flow from "./flow.js";
import { ageText, isOpen, logEnd, many } from "./model.js";
import { clockOf } from "./prefs.js";

const views = new WeakMap();

export function render(root, model, send, now, seat) {
  const view = views.get(root) ?? open(root, seat);
  const { absent } = seat.here;
  if (!absent) return void (root.hidden = true);
  if (!isOpen(model) || model.isOpening) return undefined;
  const seen = `${absent.from} ${absent.to} ${model.room} ${logEnd(model)}`;
  if (view.absent !== absent) Object.assign(view, { absent, seen: "", told: "", isFolded: false });
  else if (view.seen === seen || !isFresh(absent, now)) return undefined; // what was told stays as it is
  view.seen = seen;
  const found = absenceOf(model, absent, now);
  if (!found) return void (root.hidden = true);
  flow.markHere(beginOf(model, absent), absent.from);
  const told = JSON.stringify(found);
  if (told !== view.told) draw(view, found);
  if (root.hidden) announce(`${view.line.textContent} Escape closes what tells of it.`);
  view.told = told;
  root.hidden = false;
  return undefined;
}

/** Put the card away; false if there was none. */
export function dismiss(root) {
  const view = views.get(root);
  if (!view || root.hidden) return false;
  const hadFocus = root.contains(document.activeElement);
  view.seat.here.absent = null;
  root.hidden = true;
  if (hadFocus) document.getElementById("flow").focus({ preventScroll: true });
  view.seat.go();
  return true;
}

function open(root, seat) {
  const view = { root, seat, absent: null, seen: "", told: "", isFolded: false };
  view.line = el("p", { class: "happened-line" });
  view.fold = button("Fold it", "up", { class: "quiet", "aria-controls": "happened-parts", onclick: () => fold(view, !view.isFolded) }, true);
  view.parts = el("div", { id: "happened-parts", class: "happened-parts", tabindex: "0", role: "group", "aria-label": "What happened" });
  root.append(el("div", { class: "happened-head" }, icon("wait"), el("h2", { id: "happened-title" }, "While you were away"), view.line, view.fold,
    button("Close (Esc)", "close", { class: "quiet happened-close", onclick: () => dismiss(root) })), view.parts);
  root.setAttribute("aria-labelledby", "happened-title");
  views.set(root, view);
  return view;
}

function fold(view, isFolded) {
  view.isFolded = isFolded;
  view.parts.hidden = isFolded;
  view.fold.setAttribute("aria-expanded", String(!isFolded));
  view.fold.setAttribute("aria-label", isFolded ? "Show what happened" : "Fold it");
  view.fold.title = view.fold.getAttribute("aria-label");
}

function draw(view, { from, to, said, chars, missing, hasHole, parts }) {
  setText(view.line, `Since ${clockOf(from)}, for ${ageText((to - from) / 1000)}: ${many(said, "message")}, ${many(chars, "character")}.`);
  view.parts.replaceChildren(
    ...(missing ? [el("p", { class: "happened-missing" }, link(view, { text: `${many(missing.count, "message")} more at its beginning: not on this page, and not counted`, go: ["message", null, missing.seq] }))] : []),
    ...(hasHole ? [el("p", { class: "facts" }, "Some messages are missing on this page, and are not counted: the flow says where.")] : []),
    ...parts.map(({ title, items, more }) => el("section", { class: "happened-part" }, el("h3", {}, title),
      el("ul", {}, items.map((item) => el("li", {}, link(view, item))), more > 0 && el("li", { class: "facts" }, `and ${more.toLocaleString()} more`)))),
    el("p", { class: "facts" }, "Counted and quoted; nobody has judged what matters in it."));
  fold(view, view.isFolded);
}

function link(view, { text, go }) {
  if (!go) return el("span", { dir: "auto" }, text);
  return el("button", { type: "button", class: "happened-link", dir: "auto", onclick: () => { view.fold.focus({ preventScroll: true }); fold(view, true); view.seat.go(...go); } }, text);
}
