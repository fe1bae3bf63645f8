// Loops: the lanes that go round in circles, each with what shows it and what the operator may rule; and, among the
// settings, how far the hub goes with them by itself.

import { button, el, emptyNote, icon, keyed, nameTag, setAttribute, setIcon, setText } from "./dom.js";
import { shownState, waiting, wordsOf } from "./deeds.js";
import { setLine } from "./markdown.js";
import { ARROW, GO_ON, ageText, hueOf, isOpen, isOperator } from "./model.js";
import { nameOfScope, stateOfLoop } from "./needs.js";

// ruling -> its word, icon and meaning, and the states in which it can be given
const RULINGS = [
  { ruling: "continue", word: `Continue for ${GO_ON} messages`, icon: "play", from: ["held"], does: "Deliver what waits, and hold the lane again if it goes on in circles" },
  { ruling: "close", word: "Close the matter", icon: "gavel", from: ["held", "watched", "free"], does: "Deliver what waits, tell them that you close the matter, and take no more words of agents there" },
  { ruling: "run", word: "Let it run", icon: "next", from: ["held", "watched"], does: "Deliver what waits, and do not hold or slow this lane any more" },
  { ruling: "watch", word: "Watch again", icon: "eye", from: ["closed", "free"], does: "Agents may speak there, and the hub looks for loops as everywhere" },
];
const ICONS = { held: "pause", closed: "stop", free: "play", watched: "eye" };

const views = new WeakMap();
const parts = new WeakMap(); // card -> the nodes that change

export function render(root, model, send, now, seat) {
  const view = views.get(root) ?? open(root);
  const operator = isOperator(model);
  const { lanes } = model.loops;
  view.seat = seat;
  view.isKnown ||= lanes.length > 0;
  root.closest(".panel").hidden = !view.isKnown;
  const had = root.contains(document.activeElement);
  const held = lanes.filter(({ state }) => state === "held");
  keyed(view.list, [...held, ...lanes.filter(({ state }) => state !== "held")], ({ lane }) => `${lane} ${operator}`, (loop) => card(loop, model, operator, view),
    (node, loop) => refresh(node, loop, model, now, seat));
  view.empty.hidden = lanes.length > 0;
  setText(view.counter, held.length ? `${held.length} held` : "");
  if (had && !root.contains(document.activeElement)) view.title.focus(); // its card is gone
}

/** Bring a lane's card into view, with the focus on what can be ruled; else on what is known of it. */
export function reveal(root, lane) {
  const node = [...root.querySelectorAll(".loop")].find((one) => one.dataset.lane === lane);
  node?.scrollIntoView({ block: "nearest" });
  (node?.querySelector(".rulings button:not([hidden])") ?? node?.querySelector(".loop-evidence") ?? views.get(root)?.title)?.focus();
}

function open(root) {
  const view = { list: el("ul", { class: "cards" }), empty: emptyNote("No lane goes round in circles any more."), isKnown: false,
    title: document.getElementById("loops-title"), counter: document.getElementById("loops-count") };
  root.append(view.empty, view.list);
  views.set(root, view);
  return view;
}

function card({ lane }, model, operator, view) {
  const part = {
    state: el("span", { class: "chip loop-state" }, el("span")), words: el("p", { class: "loop-words", dir: "auto" }),
    facts: el("p", { class: "facts loop-facts" }), loop: null, deed: el("p", { class: "facts deed", role: "status" }),
    evidence: button("Show the evidence", "search", { class: "loop-evidence quiet", onclick: () => view.seat.go("evidence", { lane, from: part.loop.first_seq, to: part.loop.last_seq }) }),
  };
  const press = ({ currentTarget }, frame) => currentTarget.getAttribute("aria-disabled") !== "true" && view.seat.act(frame);
  part.rulings = operator ? RULINGS.map(({ ruling, word, icon: name, does }) =>
    button(word, name, { class: `rule-${ruling}`, title: does, data: { ruling }, onclick: (event) => press(event, { rule: { lane, ruling } }) })) : [];
  part.stop = operator && button("Stop all", "stop", { class: "rule-stop", data: { tone: "danger" }, title: "Tell every agent to end its work (asks first)", onclick: (event) => press(event, { action: "stop" }) });
  const names = lane.includes(ARROW) ? lane.split(ARROW).flatMap((name, at) => [at ? ARROW : "", nameTag(name, hueOf(model, name))]) : [nameOfScope(model, lane)];
  const node = el("li", { class: "card loop", data: { lane } },
    el("div", { class: "card-head" }, icon("loop"), el("bdi", { class: "scope", title: lane }, names)), part.state,
    part.words, part.facts, part.evidence,
    operator && el("div", { class: "rulings", role: "group", "aria-label": `Rule on ${nameOfScope(model, lane)}` }, part.rulings, part.stop), operator && part.deed);
  parts.set(node, part);
  return node;
}

function refresh(node, loop, model, now, seat) {
  const part = parts.get(node);
  part.loop = loop;
  if (node.dataset.state !== loop.state) setIcon(part.state, ICONS[loop.state] ?? "loop");
  Object.assign(node.dataset, { state: loop.state, level: loop.level });
  setText(part.state.lastElementChild, `${stateOfLoop(loop)}${loop.state === "held" ? ` for ${ageText(now / 1000 - loop.ts)}` : ""}`);
  setLine(part.words, loop.words);
  setText(part.facts, factsOf(loop));
  part.facts.hidden = part.facts.textContent === "";
  part.evidence.hidden = !loop.last_seq;
  if (!isOperator(model)) return;
  const deed = seat.deeds.list.find((one) => one.subject === loop.lane && one.command === "rule");
  const isAsked = deed?.state === "asked";
  for (const [at, control] of part.rulings.entries()) {
    const isFree = RULINGS[at].from.includes(loop.state);
    if (!isFree && control === document.activeElement) part.evidence.focus(); // it goes from under the hand
    control.hidden = !isFree;
    setAttribute(control, "aria-disabled", String(isAsked || !isOpen(model)));
  }
  part.stop.hidden = loop.state !== "held";
  setAttribute(part.stop, "aria-disabled", String(!isOpen(model)));
  part.deed.dataset.state = shownState(deed, now);
  setText(part.deed, part.deed.dataset.state ? `${deed.word.replace(` ${nameOfScope(model, loop.lane)}`, "")}: ${wordsOf(deed, now)}` : "");
}

/** Of how many messages it is known, and by whom. */
function factsOf({ kind, count, of, names, waiting: waits }) {
  const said = count ? `${kind}: ${count} of ${of} messages` : "";
  const who = names.length ? `by ${names.join(", ")}` : "";
  const wait = waits ? `${waits} ${waits === 1 ? "message waits" : "messages wait"}` : "";
  return [[said, who].filter(Boolean).join(" "), wait].filter(Boolean).join(" · ");
}

// ---- how far the hub goes by itself -----------------------------------------------------------------------------

const RELEASE_MAX_MIN = 1440;
const FAR = [
  ["off", "Off", "Nothing is looked for, and nothing is slowed or held."],
  ["hint", "Hint", "The answer to who speaks there says so; nothing else changes."],
  ["slow", "Slow", "And the lane is slowed to a quarter: all who speak there share that."],
  ["hold", "Hold", "And when it is sure, what agents say there waits until you rule. Nothing is lost."],
];

export function renderSettings(root, model, send, now, seat) {
  if (!root.closest("dialog").open || model.loops.upto === null) return;
  const view = views.get(root) ?? openSettings(root, seat);
  const may = isOperator(model);
  const { upto, release } = model.loops;
  view.isDirty &&= uptoOf(view) !== upto || view.minutes.valueAsNumber * 60 !== release; // what was set is what the hub has
  if (!view.isDirty && (view.upto !== upto || view.release !== release || uptoOf(view) !== upto)) {
    for (const one of view.choices) one.checked = one.value === upto;
    view.minutes.value = String(release / 60);
    Object.assign(view, { upto, release });
  }
  view.fields.disabled = !may;
  view.buttons.hidden = !may;
  view.only.hidden = may;
  view.set.disabled = !isOpen(model) || !view.isDirty || waiting(seat.deeds, "loops") !== null;
  const deed = seat.deeds.list.find((one) => one.command === "loops");
  setText(view.deed, deed && (!view.isDirty || deed.state === "refused") ? wordsOf(deed, now) : "");
}

const uptoOf = ({ choices }) => choices.find((one) => one.checked)?.value;

function openSettings(root, seat) {
  const view = { upto: null, release: null, isDirty: false, choices: [], deed: el("span", { class: "facts", role: "status" }) };
  const touched = () => { view.isDirty = true; seat.go(); };
  const rows = FAR.map(([upto, word, meaning]) => {
    const box = el("input", { type: "radio", name: "loops-upto", id: `loops-${upto}`, value: upto, "aria-describedby": `loops-${upto}-note`, onchange: touched });
    view.choices.push(box);
    return el("div", { class: "switch" }, box, el("div", {}, el("label", { for: box.id }, word), el("span", { class: "facts", id: `loops-${upto}-note` }, meaning)));
  });
  view.minutes = el("input", { type: "number", id: "loops-release", min: "0", max: String(RELEASE_MAX_MIN), step: "any", required: true, "aria-describedby": "loops-release-note", oninput: touched });
  view.fields = el("fieldset", {}, el("legend", { class: "unseen" }, "How far the hub goes with loops"), rows,
    el("label", { class: "field-label", for: "loops-release" }, "Let a held lane go after so many minutes of your silence"), view.minutes,
    el("p", { class: "facts", id: "loops-release-note" }, `0: never, it waits for you. Else it goes on once, slowly, for ${GO_ON} messages.`));
  view.set = el("button", { type: "submit", class: "strong" }, icon("check"), el("span", {}, "Set"));
  view.buttons = el("div", { class: "rules-buttons" }, view.set, view.deed);
  view.only = el("p", { class: "facts" }, "Only the operator changes this.");
  const set = (event) => {
    event.preventDefault();
    seat.act({ loops: { upto: uptoOf(view), release: view.minutes.valueAsNumber * 60 } });
  };
  root.append(el("h3", {}, "Loops"), el("p", { class: "facts" }, "How far the hub goes by itself when agents go round in circles."),
    el("form", { onsubmit: set }, view.fields, view.buttons), view.only);
  views.set(root, view);
  return view;
}
