// Away: what is to happen while the operator is not here: when a quiet room stops by itself, and where pushes go.

import { button, el, setText } from "./dom.js";
import { ageText, isOpen, isOperator } from "./model.js";
import { waiting, wordsOf } from "./deeds.js";

const MINUTES_MAX = 10_080; // a week: the hub takes no more

const views = new WeakMap();

export function render(root, model, send, now, seat) {
  if (!root.closest("dialog").open) return;
  const view = views.get(root) ?? open(root, seat);
  const may = isOperator(model);
  if (!view.isDirty) view.minutes.value = model.quietStop ? String(model.quietStop) : "";
  view.isDirty = view.isDirty && minutesIn(view) !== model.quietStop; // what was saved is what the hub has
  view.minutes.readOnly = !may;
  view.save.hidden = !may;
  view.save.disabled = !isOpen(model) || waiting(seat.deeds, "quiet_stop") !== null || !view.isDirty || !view.minutes.checkValidity();
  const deed = seat.deeds.list.find((one) => one.command === "quiet_stop");
  setText(view.deed, deed && (!view.isDirty || deed.state === "refused") ? wordsOf(deed, now) : "");
  setText(view.pushes, pushWords(model.health?.notify, now));
  view.test.hidden = !may || !model.health?.notify;
  view.test.disabled = !isOpen(model);
}

function open(root, seat) {
  const view = { isDirty: false, deed: el("span", { class: "facts", role: "status" }), pushes: el("p", { class: "facts", id: "pushes" }) };
  view.minutes = el("input", { type: "number", id: "quiet-stop", min: "0", max: String(MINUTES_MAX), step: "any", placeholder: "never", "aria-describedby": "quiet-stop-note", oninput: () => { view.isDirty = true; seat.go(); } });
  view.save = button("Save", "check", { class: "strong", onclick: () => seat.act({ quiet_stop: minutesIn(view) }) });
  view.test = button("Send a test push", "bell", { class: "quiet", onclick: () => seat.ask({ notify_test: true }) });
  root.append(el("h3", {}, "While you are away"),
    el("div", { class: "quiet-stop" }, el("label", { for: "quiet-stop" }, "Stop when nobody has spoken for"), view.minutes, el("span", {}, "minutes"), view.save, view.deed),
    el("p", { class: "facts", id: "quiet-stop-note" }, "Counted while the room runs, somebody is in it and nothing waits for you. Your own words count, too. Empty: never."),
    view.pushes, view.test);
  views.set(root, view);
  return view;
}

const minutesIn = (view) => Number(view.minutes.value || 0);

/** Where pushes go, and whether they arrive. */
export function pushWords(notify, now) {
  if (!notify) return "Nothing is pushed to you while you are away: start the hub with --notify URL for that.";
  const last = notify.sent_ts ? `, the last ${ageText(Math.max(0, now / 1000 - notify.sent_ts))} ago` : "";
  const lost = notify.given_up ? ` ${notify.given_up} given up.` : "";
  const waits = notify.waiting ? ` ${notify.waiting} ${notify.waiting === 1 ? "waits" : "wait"}.` : "";
  return `What needs you is pushed to ${notify.place} while no console is in the foreground: ${notify.sent} sent${last}.${waits}${lost}${notify.fault ? ` It fails: ${notify.fault}.` : ""}`;
}
