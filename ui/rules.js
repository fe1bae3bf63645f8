// House rules: what the operator wants every agent of this room to know, and who of them has read which version.

import { button, el, setAttribute, setText } from "./dom.js";
import { keepIn, keptIn } from "./kept.js";
import { isOpen, isOperator } from "./model.js";
import { listed, waiting, wordsOf } from "./deeds.js";

const RULES_MAX = 4_000; // characters, as code points: the hub takes no more
const DRAFT = "caucus.rules"; // what is being changed survives a reload of the tab

const views = new WeakMap();

export function render(root, model, send, now, seat) {
  if (!root.closest("dialog").open) return;
  const view = views.get(root) ?? open(root, seat);
  view.model = model;
  const { text, version } = model.rules;
  view.isDirty = view.isDirty && view.text.value.trim() !== text.trim(); // what was saved is what the hub has
  if (view.version !== version && !view.isDirty) take(view);
  keep(view);
  const may = isOperator(model);
  view.text.readOnly = !may;
  view.buttons.hidden = !may;
  setText(view.fact, version ? `Version ${version}${text ? "" : ", which is empty"}` : "None were set yet");
  count(view);
  const isAsked = waiting(seat.deeds, "rules") !== null;
  view.save.disabled = !isOpen(model) || isAsked || !view.isDirty || view.length > RULES_MAX;
  view.undo.disabled = !view.isDirty;
  view.meanwhile.hidden = !(view.isDirty && view.version !== version);
  setText(view.meanwhile, view.meanwhile.hidden ? "" : `Version ${version} was set while you wrote. Saving replaces it; “Take back” shows it.`);
  const deed = seat.deeds.list.find((one) => one.command === "rules");
  setText(view.deed, deed && !view.isDirty ? wordsOf(deed, now) : deed?.state === "refused" ? wordsOf(deed, now) : "");
  setText(view.readers, readersOf(model));
}

/** The rules of a moment of the past, or of a room that is only watched: to read. */
export function renderThen(root, model) {
  if (!root.closest("dialog").open) return;
  const { text, version } = model.rules;
  if (!root.hasChildNodes()) root.append(el("h3", {}, "House rules then"), el("p", { class: "facts" }), el("p", { class: "rules-text", dir: "auto" }));
  setText(root.children[1], version ? `Version ${version}${text ? "" : ", which is empty"}. To read only: this is the past.` : "None were set yet.");
  setText(root.children[2], text);
}

function open(root, seat) {
  const view = { model: null, version: -1, isDirty: false, length: 0, fact: el("span", { class: "count" }),
    counter: el("span", { class: "facts", id: "rules-count" }), meanwhile: el("p", { class: "refusal", role: "status", hidden: true }),
    deed: el("span", { class: "facts", role: "status" }), readers: el("p", { class: "facts", id: "rules-readers" }) };
  view.text = el("textarea", { id: "rules-text", rows: "6", dir: "auto", "aria-describedby": "rules-count rules-belong", spellcheck: "true", oninput: () => { view.isDirty = true; keep(view); seat.go(); } });
  view.save = button("Save the rules", "check", { class: "strong", onclick: () => seat.act({ rules: view.text.value }) });
  view.undo = button("Take back", null, { class: "quiet", title: "Forget what you changed", onclick: () => { view.isDirty = false; take(view); seat.go(); } });
  view.buttons = el("div", { class: "rules-buttons" }, view.save, view.undo, view.deed);
  root.append(
    el("div", { class: "rules-head" }, el("h3", {}, el("label", { for: "rules-text" }, "House rules")), view.fact),
    el("p", { class: "facts" }, "What every agent in this room is to know. It comes with the brief, after the protocol; of a change each agent is told with its next batch."),
    view.text, view.counter, view.meanwhile, view.buttons, view.readers,
    el("p", { class: "facts", id: "rules-belong" }, "A rule that the hub can hold, of rate, roles or budgets, belongs there: the hub keeps it, while what stands here is advice. ",
      button("Set the rate", null, { class: "rules-rate quiet", onclick: () => seat.go("rate") }),
      button("Budgets", null, { class: "rules-rate quiet", onclick: () => seat.go("budgets") })));
  const draft = keptIn(sessionStorage, DRAFT);
  if (draft) Object.assign(view, { isDirty: true, version: draft.version }).text.value = draft.text;
  views.set(root, view);
  return view;
}

const keep = (view) => keepIn(sessionStorage, DRAFT, view.isDirty ? { text: view.text.value, version: view.version } : null);

function take(view) {
  view.version = view.model.rules.version;
  view.text.value = view.model.rules.text;
}

function count(view) {
  view.length = [...view.text.value].length;
  setText(view.counter, `${view.length.toLocaleString("en")} of ${RULES_MAX.toLocaleString("en")} characters`);
  const isTooLong = view.length > RULES_MAX;
  view.counter.classList.toggle("refusal", isTooLong);
  setAttribute(view.text, "aria-invalid", String(isTooLong));
}

/** Who has read which version: the newest first, and then who has read none; every name, for who is not told of is looked for in vain. */
function readersOf({ peers, rules: { version } }) {
  if (!version || peers.length === 0) return "";
  const versions = [...new Set(peers.map((peer) => peer.rules_read ?? 0))].sort((a, b) => b - a);
  const groups = versions.map((read) => [read, peers.filter((peer) => (peer.rules_read ?? 0) === read)]);
  return groups.map(([read, who]) => `${read === 0 ? "Not read yet by" : read === version ? `Version ${read} was read by` : `Still at version ${read}:`} ${listed(who.map((peer) => peer.name), Infinity)}.`).join(" ");
}
