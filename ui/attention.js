// Attention: the strip that says what needs the operator, and how much there is to read. First in the page.

import { button, el, icon, keyed, nameTag, setText } from "./dom.js";
import { ageText, hueOf, isOpen, isOperator } from "./model.js";
import { minutesOf, nameOfScope, owedOf } from "./needs.js";
import { clockOf } from "./prefs.js";

const ICONS = { form: "form", stop: "stop", loop: "loop", mention: "mention", deaf: "deaf", stick: "stick", question: "help", owed: "wait" };
const WIDE = matchMedia("(min-width: 100rem)"); // three fit; else two; on a phone one
const NARROW = matchMedia("(max-width: 62rem)");

const DEBT_SHOWN_MIN = 30; // minutes of reading that fill the gauge

const views = new WeakMap();

export function render(root, model, send, now, seat) {
  const view = views.get(root) ?? open(root, seat);
  const known = model.mode !== null;
  const needs = known ? seat.needs : [];
  const fits = NARROW.matches ? 1 : WIDE.matches ? 3 : 2;
  const inStrip = needs.slice(0, fits);
  root.dataset.calls = String(needs.length > 0);
  setText(view.count, needs.length ? String(needs.length) : "");
  view.quiet.hidden = !known || needs.length > 0;
  const mode = `${isOperator(model)}`;
  const keyOf = (need) => `${need.id}\n${need.help.word}\n${mode}`;
  keyed(view.strip, inStrip, keyOf, (need) => item(need, model, seat), (node, need) => refresh(node, need, model, now));
  const isShown = view.all.matches(":popover-open");
  const owed = known ? owedOf(model) : [];
  keyed(view.rest, isShown ? needs.filter((need) => need.kind !== "owed") : [], keyOf, (need) => item(need, model, seat), (node, need) => refresh(node, need, model, now));
  keyed(view.owed, isShown ? owed : [], ({ seq, acts }) => `${seq} ${acts.length} ${mode}`, (debt) => owedLine(debt, model, seat), (node, debt) => refreshOwed(node, debt, model, now, seat));
  view.owedNone.hidden = owed.length > 0;
  view.owes.hidden = owed.length === 0;
  setText(view.owesText, String(owed.length));
  view.more.hidden = needs.length <= fits;
  setText(view.moreText, `All ${needs.length}`);
  if (needs.length === 0 && owed.length === 0 && isShown) view.all.hidePopover();
  showDebt(view, seat.debt, known);
}

/** The list never covers Pause and Stop: the hand that reads it may have to reach for them. */
function placeBelowBrakes(list) {
  const below = Math.max(...[...document.querySelectorAll("#brakes button, #attention")].map((one) => one.getBoundingClientRect().bottom)) + 4;
  list.style.setProperty("top", `${below}px`);
  list.style.setProperty("max-height", `min(36rem, calc(100dvh - ${below}px - 0.5rem))`);
}

function open(root, seat) {
  const view = { strip: el("ul", { class: "needs" }), rest: el("ul", { class: "needs" }), owed: el("ul", { class: "owed" }),
    owedNone: el("p", { class: "facts" }, "Nobody: every question has its answer."), count: el("span", { class: "needs-count" }), moreText: el("span"),
    quiet: el("p", { class: "needs-none", hidden: true }, icon("check"), "Nothing needs you.") };
  view.more = el("button", { type: "button", class: "needs-more", popovertarget: "needs-all", hidden: true }, view.moreText, icon("down"));
  view.all = el("div", { id: "needs-all", class: "drop", popover: "auto", role: "region", "aria-label": "Everything that needs you", ontoggle: (event) => { placeBelowBrakes(event.target); seat.go(); } },
    el("h2", {}, "Needs you"), view.rest, el("h2", { class: "owed-title" }, "Who owes whom an answer"), view.owed, view.owedNone);
  view.owesText = el("span");
  view.owes = el("button", { type: "button", class: "needs-owed", popovertarget: "needs-all", title: "Who owes whom an answer", hidden: true }, icon("help"), view.owesText, " ", el("span", { class: "owed-word" }, "unanswered"));
  view.debt = el("p", { class: "debt", hidden: true }, icon("book"), el("span", { class: "debt-text" }),
    el("meter", { class: "debt-meter", min: "0", max: String(DEBT_SHOWN_MIN), low: "5", high: "15", optimum: "0", "aria-label": "Reading debt, in minutes" }),
    button("Caught up", "check", { class: "caught-up quiet", title: "You have read enough: the debt is settled", onclick: () => seat.go("caught-up") }));
  root.append(el("h2", { class: "needs-title" }, icon("bell"), "Needs you", view.count), view.quiet, view.strip, view.more, view.owes, view.all, view.debt);
  for (const width of [WIDE, NARROW]) width.addEventListener("change", () => seat.go());
  views.set(root, view);
  return view;
}

const parts = new WeakMap(); // item -> the nodes that change

function item(need, model, seat) {
  const part = { need, text: el("bdi", { class: "need-text" }), age: el("span", { class: "facts need-age" }) };
  const acts = need.help.go || isOperator(model);
  part.help = acts && button(isOperator(model) ? need.help.word : "Show", null, { class: "need-help", onclick: () => help(part.need, seat) });
  const node = el("li", { class: "need", data: { kind: need.kind } }, icon(ICONS[need.kind]),
    el("p", {}, need.who && nameTag(need.who, hueOf(model, need.who)), need.who && " ", need.verb && `${need.verb}: `, part.text), part.age, part.help,
    need.kind === "form" ? null : button("Not now", "close",
      { class: "need-away", title: "Not now: hide this until it changes", onclick: () => seat.go("dismiss", part.need.id) }, true));
  parts.set(node, part);
  return node;
}

function help(need, seat) {
  document.getElementById("needs-all").hidePopover();
  if (need.help.frame) seat.act(need.help.frame);
  else seat.go(...need.help.go);
}

function refresh(node, need, model, now) {
  const part = parts.get(node);
  part.need = need;
  setText(part.text, need.text);
  node.title = `${need.who ? `${need.who} ` : ""}${need.verb ? `${need.verb}: ` : ""}${need.text}`;
  setText(part.age, ["form", "mention", "question", "owed"].includes(need.kind) && need.since ? ageText((now - need.since) / 1000) : "");
  if (part.help) part.help.disabled = Boolean(need.help.frame) && !isOpen(model);
}

// ---- who owes whom an answer ------------------------------------------------------------------------------------

function owedLine(debt, model, seat) {
  const lane = debt.to === "all" ? "anybody" : debt.to.startsWith("#") ? `anybody in ${debt.to}` : null;
  const tag = (name) => (name === "human" ? el("b", {}, nameOfScope(name)) : nameTag(name, hueOf(model, name)));
  const part = { debt, age: el("span", { class: "facts" }), acts: [] };
  const show = () => act({ go: ["message", part.debt.id] }, seat);
  if (isOperator(model)) part.acts = debt.acts.map((_, at) => button(debt.acts[at].word, null, { class: "quiet", title: debt.acts[at].title, onclick: () => act(part.debt.acts[at], seat) }));
  const node = el("li", { class: "owe", data: { seq: String(debt.seq) } },
    el("p", { class: "owe-who" }, lane ? el("b", {}, lane) : tag(debt.to), debt.to === "human" ? " owe " : " owes ", tag(debt.asker), " ", part.age),
    el("button", { type: "button", class: "owe-words quiet", title: "Go to the message", onclick: show }, el("bdi", {}, debt.text)),
    el("div", { class: "owe-acts" }, part.acts));
  parts.set(node, part);
  return node;
}

function act(one, seat) {
  if (one.go) document.getElementById("needs-all").hidePopover();
  if (one.go) seat.go(...one.go);
  else seat.act(one.frame);
}

/** A deed on a question cannot be done twice while it is under way: its button waits until the hub confirms. */
function refreshOwed(node, debt, model, now, seat) {
  const part = parts.get(node);
  part.debt = debt;
  setText(part.age, `for ${ageText((now - debt.since) / 1000)}`);
  const isAsked = seat.deeds.list.some((deed) => deed.state === "asked" && [deed.frame.settles, deed.frame.reply_to].includes(debt.seq));
  for (const control of part.acts) control.disabled = !isOpen(model) || isAsked;
}

// ---- what there is to read --------------------------------------------------------------------------------------

function showDebt(view, debt, known) {
  const minutes = minutesOf(debt.chars);
  view.debt.hidden = !known;
  const owes = minutes >= 0.1;
  const clock = owes ? clockOf(debt.since) : "";
  const words = minutes < 1 ? "under a minute" : `${Math.round(minutes).toLocaleString("en")} min`;
  setText(view.debt.querySelector(".debt-text"), owes ? `${words} to read since ${clock}` : "Nothing unread");
  view.debt.title = owes ? `${Math.round(debt.chars).toLocaleString("en")} characters arrived since you last looked, at ${clock}`
    : "No agent has said anything since you last looked";
  view.debt.dataset.owes = String(owes);
  view.debt.querySelector("meter").value = Math.min(DEBT_SHOWN_MIN, minutes);
  view.debt.querySelector(".caught-up").disabled = !owes;
}

// ---- opt-in calls: a browser notification, a sound --------------------------------------------------------------

let called = null; // ids that were called out; null before the first look, which calls nobody

/** Call the operator to what is new; `prefs` says how. Gives the new ones. */
export function call(needs, prefs) {
  const fresh = called === null ? [] : needs.filter((need) => !called.has(need.id));
  called = new Set(needs.map((need) => need.id));
  if (fresh.length === 0) return fresh;
  if (prefs.sound) beep();
  if (prefs.notify && document.hidden && globalThis.Notification?.permission === "granted") for (const need of fresh.slice(0, 3)) notify(need);
  return fresh;
}

function notify(need) {
  const note = new Notification("Caucus needs you", { body: wordsOf(need).slice(0, 200), tag: need.id, icon: "/assets/icon.svg" });
  note.onclick = () => { window.focus(); note.close(); };
}

/** A need in one sentence. */
export const wordsOf = (need) => `${need.who ? `${need.who} ` : ""}${need.verb ? `${need.verb}: ` : ""}${need.text}`;

const TONE_HZ = 660;
const TONE_S = 0.16;

/** One short, soft tone; a browser that has heard no click yet stays silent. */
export function beep() {
  const sound = new AudioContext();
  const tone = sound.createOscillator();
  const volume = sound.createGain();
  tone.frequency.value = TONE_HZ;
  volume.gain.setValueAtTime(0.08, sound.currentTime);
  volume.gain.exponentialRampToValueAtTime(0.0001, sound.currentTime + TONE_S);
  tone.connect(volume).connect(sound.destination);
  tone.start();
  tone.stop(sound.currentTime + TONE_S);
  tone.onended = () => sound.close();
}
