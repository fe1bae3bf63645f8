// Orders: what became of the operator's deeds; the newest in the header, the rest in a list that opens from it.

import { button, el, icon, keyed, setIcon, setText } from "./dom.js";
import { isLate, wordsOf } from "./deeds.js";
import { isOperator } from "./model.js";
import { clockOf, pref } from "./prefs.js";

const MARKS = { asked: "wait", effective: "check", refused: "close", unknown: "help" };

const views = new WeakMap();

export function render(root, model, send, now, seat) {
  const view = views.get(root) ?? open(root);
  const { list } = seat.deeds;
  root.hidden = !isOperator(model) || list.length === 0;
  if (root.hidden) return;
  show(view.latest, list[0], now);
  view.more.hidden = list.length < 2;
  keyed(view.list, list, (deed) => `${deed.n} ${pref("utc")}`, line, (node, deed) => show(node, deed, now));
}

function open(root) {
  const view = { latest: line(null), list: el("ol", { class: "orders-list" }) };
  view.more = button("All your orders", "orders", { popovertarget: "orders-all", class: "orders-more" }, true);
  const box = el("div", { id: "orders-all", class: "drop", popover: "auto", role: "region", "aria-label": "Your orders, the newest first" },
    el("h2", {}, "Your orders"), view.list);
  root.append(view.latest, view.more, box);
  views.set(root, view);
  return view;
}

function line(deed) {
  return el(deed ? "li" : "p", { class: "order" }, icon("wait"), el("span", { class: "order-word" }), el("span", { class: "order-text" }),
    deed && el("time", { class: "facts", datetime: new Date(deed.at).toISOString() }, clockOf(deed.at, "2-digit")));
}

function show(node, deed, now) {
  const state = isLate(deed, now) ? "late" : deed.untold.length ? "partly" : deed.state;
  if (node.dataset.state !== state) {
    node.dataset.state = state;
    setIcon(node, state === "partly" || state === "late" ? "wait" : MARKS[deed.state]);
  }
  const text = wordsOf(deed, now);
  setText(node.querySelector(".order-word"), deed.word);
  setText(node.querySelector(".order-text"), text);
  node.title = `${deed.word}: ${text}`;
}
