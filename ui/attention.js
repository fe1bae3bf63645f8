// Attention: the strip that says what needs the operator, and how much there is to read. First in the page.

import { button, el, icon, keyed, nameTag, setAttribute, setText } from "./dom.js";
import { drawLine, setLine } from "./markdown.js";
import { ageText, hueOf, isOpen, isOperator, lineOf } from "./model.js";
import { isOffered, offer } from "./calls.js";
import { NUDGE_S, actsOf, minutesOf, nameOfScope, owedOf, wordsOf } from "./needs.js";
import { clockOf } from "./prefs.js";
import { meansOf, triedOf } from "./runbook.js";

const ICONS = { form: "form", stop: "stop", loop: "loop", slow: "loop", mention: "mention", deaf: "deaf", stick: "stick", question: "help", owed: "wait", converged: "check", died: "wait", budget: "gauge",
  restart: "replay", loss: "mail", flood: "bolt", away: "kick", silent: "wait", stage: "stop" };
const AGED = new Set(["form", "loop", "mention", "question", "owed", "restart", "loss"]); // others tell it in their words
const AWAY_WORDS = { mention: "It needs no answer: let it go", restart: "Seen: let it go", loss: "Seen: hide it until more is lost later" };
const WIDE = matchMedia("(min-width: 100rem)"); // three fit; else two; on a phone one
const NARROW = matchMedia("(max-width: 62rem)");

const HAND_MS = 5_000; // a hand that has not moved for so long is not about to press
const OWED_SHOWN = 40; // lines at a time: the hub follows up to some hundred questions
const DEBT_SHOWN_MIN = 30; // minutes of reading that fill the gauge

const views = new WeakMap();

export function render(root, model, send, now, seat) {
  const view = views.get(root) ?? open(root, seat);
  const known = model.mode !== null;
  const needs = known ? seat.needs : [];
  const fits = NARROW.matches ? 1 : WIDE.matches ? 3 : 2;
  const inStrip = steady(view, view.strip, needs, ({ id }) => id, now).slice(0, fits);
  root.dataset.calls = String(needs.length > 0);
  setText(view.count, needs.length ? String(needs.length) : "");
  view.quiet.hidden = !known || needs.length > 0;
  nameAll(root, view, model);
  const mode = `${isOperator(model)}`;
  const keyOf = (need) => `${need.id}\n${need.help.word}\n${need.also?.word ?? ""}\n${mode}`;
  keyed(view.strip, inStrip, keyOf, (need) => item(need, model, seat, false), (node, need) => refresh(node, need, model, now, seat));
  const isShown = view.all.matches(":popover-open");
  const rest = steady(view, view.rest, isShown ? needs.filter((need) => need.kind !== "owed") : [], ({ id }) => id, now);
  keyed(view.rest, rest, keyOf, (need) => item(need, model, seat, true), (node, need) => refresh(node, need, model, now, seat));
  view.title.hidden = rest.length === 0;
  drawOwed(view, model, seat, now, isShown, mode);
  const owed = known ? model.owed : [];
  view.owes.hidden = owed.length === 0;
  setText(view.owesText, String(owed.length));
  view.more.hidden = needs.length <= fits;
  setText(view.moreText, `All ${needs.length}`);
  view.open.disabled = needs.length === 0;
  if (isShown && rest.length === 0 && view.owed.childElementCount === 0) view.all.hidePopover();
  else if (isShown && view.opensAt) openAt(view);
  view.offer.hidden = !isOperator(model) || !isOffered(needs);
  showDebt(view, seat.debt, known);
}

/** To who only watches, it is the operator's. */
function nameAll(root, view, model) {
  const isYours = model.link.role !== "observer";
  setText(view.name, isYours ? "Needs you" : "Waits for the operator");
  setText(view.title, view.name.textContent);
  setText(view.none, isYours ? "Nothing needs you." : "Nothing waits for the operator.");
  setAttribute(root, "aria-label", view.name.textContent);
  setAttribute(view.all, "aria-label", isYours ? "Everything that needs you" : "Everything that waits for the operator");
}

/** What of a list is shown: while a hand is on it nothing slides under it, so what is done keeps its place, and what is new comes last. */
function steady(view, list, items, idOf, now) {
  const isHeld = now - (view.hands.get(list) ?? 0) < HAND_MS && list.matches(":hover, :focus-within");
  const fresh = new Map(items.map((one) => [idOf(one), one]));
  const kept = isHeld ? (view.shown.get(list) ?? []).map((old) => fresh.get(idOf(old)) ?? { ...old, isDone: true }) : [];
  for (const one of kept) fresh.delete(idOf(one));
  const shown = [...kept, ...fresh.values()];
  view.shown.set(list, shown);
  return shown;
}

function watchHand(view, list, seat) {
  for (const kind of ["pointermove", "pointerdown", "keydown", "focusin"]) list.addEventListener(kind, () => view.hands.set(list, Date.now()), { passive: true });
  for (const kind of ["pointerleave", "focusout"]) list.addEventListener(kind, () => { view.owedStamp = []; seat.go(); });
}

/** Go to the part of the list that was asked for. */
function openAt(view) {
  const place = view.opensAt.hidden ? view.owedTitle : view.opensAt;
  view.opensAt = null;
  place.focus({ preventScroll: true });
  view.all.scrollTop = place === view.title ? 0 : place.offsetTop - 8;
}

/** The list never covers Pause and Stop: the hand that reads it may have to reach for them. */
function placeBelowBrakes(list) {
  const below = Math.max(...[...document.querySelectorAll("#brakes button, #attention")].map((one) => one.getBoundingClientRect().bottom)) + 4;
  list.style.setProperty("top", `${below}px`);
  list.style.setProperty("max-height", `min(36rem, calc(100dvh - ${below}px - 0.5rem))`);
}

function open(root, seat) {
  const view = { strip: el("ul", { class: "needs" }), rest: el("ul", { class: "needs" }), owed: el("ul", { class: "owed" }),
    shown: new Map(), hands: new Map(), // list -> what it shows, and when a hand last moved on it
    owedStamp: [], owedMax: OWED_SHOWN, // what the lines were drawn from, and how many at most
    opensAt: null, // the heading that the list is to open at
    title: el("h2", { tabindex: "-1" }, "Needs you"), owedTitle: el("h2", { class: "owed-title", tabindex: "-1" }, "Who owes whom an answer"),
    owedNone: el("p", { class: "facts" }, "Nobody: every question has its answer."), count: el("span", { class: "needs-count" }), moreText: el("span"),
    quiet: el("p", { class: "needs-none", hidden: true }, icon("check")), none: el("span"), name: el("span", { class: "needs-name" }), offer: offer() };
  view.quiet.append(view.none);
  view.more = el("button", { type: "button", class: "needs-more", popovertarget: "needs-all", hidden: true, onclick: () => { view.opensAt = view.title; } }, view.moreText, icon("down"));
  view.owedMore = button("", "down", { class: "owed-more quiet", onclick: () => { view.owedMax += OWED_SHOWN; seat.go(); } });
  view.all = el("div", { id: "needs-all", class: "drop", popover: "auto", role: "region", "aria-label": "Everything that needs you", ontoggle: (event) => { placeBelowBrakes(event.target); seat.go(); } },
    view.title, view.rest, view.owedTitle, view.owed, view.owedMore, view.owedNone);
  view.owesText = el("span");
  view.owes = el("button", { type: "button", class: "needs-owed", popovertarget: "needs-all", title: "Who owes whom an answer", hidden: true, onclick: () => { view.opensAt = view.owedTitle; } }, icon("help"), view.owesText, " ", el("span", { class: "owed-word" }, "unanswered"));
  view.debt = el("p", { class: "debt", hidden: true }, icon("book"), el("span", { class: "debt-text" }),
    el("meter", { class: "debt-meter", min: "0", max: String(DEBT_SHOWN_MIN), low: "5", high: "15", optimum: "0", "aria-label": "Reading debt, in minutes" }),
    button("Caught up", "check", { class: "caught-up quiet", title: "You have read enough: the debt is settled", onclick: () => seat.go("caught-up") }));
  view.open = el("button", { type: "button", class: "needs-open", popovertarget: "needs-all", title: "All of it: what it means, what was tried, what helps", onclick: () => { view.opensAt = view.title; } },
    icon("bell"), view.name, view.count);
  root.append(el("h2", { class: "needs-title" }, view.open), view.quiet, view.strip, view.more, view.owes, view.all, view.offer, view.debt);
  for (const width of [WIDE, NARROW]) width.addEventListener("change", () => seat.go());
  for (const list of [view.strip, view.rest, view.owed]) watchHand(view, list, seat);
  views.set(root, view);
  return view;
}

const parts = new WeakMap(); // item -> the nodes that change

/** In the strip one line and one button; in the list all that is known of it. */
function item(need, model, seat, isWhole) {
  const part = { need, acts: [], text: el("bdi", { class: "need-text" }), age: el("span", { class: "facts need-age" }),
    tried: isWhole && el("span", { class: "need-tried" }) };
  const acts = actsOf(model, need).slice(0, isWhole ? 2 : 1);
  part.buttons = acts.map((one, at) => button(one.word, null, { class: at ? "need-also quiet" : "need-help", onclick: () => help(part.acts[at], seat) }));
  const book = isWhole && el("p", { class: "need-book facts" }, el("span", { class: "need-means" }, meansOf(need)), " ", part.tried);
  const node = el("li", { class: "need", data: { kind: need.kind } }, icon(ICONS[need.kind]),
    el("p", { class: "need-words" }, need.who && nameTag(need.who, hueOf(model, need.who)), need.who && " ", need.verb && `${need.verb}: `, part.text), part.age, el("div", { class: "need-acts" }, part.buttons),
    need.kind === "form" ? null : button("Not now", "close",
      { class: "need-away", title: AWAY_WORDS[need.kind] ?? "Not now: hide this until it changes", onclick: () => seat.go("dismiss", part.need.id) }, true), book);
  parts.set(node, part);
  return node;
}

function help(one, seat) {
  if (one.frame) return void seat.act(one.frame);
  document.getElementById("needs-all").hidePopover();
  seat.go(...one.go);
}

function refresh(node, need, model, now, seat) {
  const part = parts.get(node);
  Object.assign(part, { need, acts: actsOf(model, need) });
  setLine(part.text, need.text);
  node.title = wordsOf(need);
  setText(part.age, AGED.has(need.kind) && need.since ? ageText((now - need.since) / 1000) : "");
  node.toggleAttribute("data-done", Boolean(need.isDone));
  if (part.tried) setText(part.tried, triedOf(need, seat.deeds, now));
  for (const [at, control] of part.buttons.entries()) control.disabled = Boolean(need.isDone) || (Boolean(part.acts[at]?.frame) && !isOpen(model));
}

// ---- who owes whom an answer ------------------------------------------------------------------------------------

/** Lines are drawn anew when something of them has changed, not with every frame of the hub. */
function drawOwed(view, model, seat, now, isShown, mode) {
  if (!isShown) view.owedMax = OWED_SHOWN;
  const stamp = [isShown, model.owed, seat.deeds.list, mode, isOpen(model), Math.floor(now / 1000), view.owedMax];
  if (stamp.every((one, at) => one === view.owedStamp[at])) return;
  view.owedStamp = stamp;
  const owed = isShown ? owedOf(model) : [];
  const lines = steady(view, view.owed, owed.slice(0, view.owedMax), ({ seq }) => seq, now);
  keyed(view.owed, lines, ({ seq }) => `${seq} ${mode}`, (debt) => owedLine(debt, model, seat), (node, debt) => refreshOwed(node, debt, model, now, seat));
  const more = owed.length - view.owedMax;
  view.owedMore.hidden = more <= 0;
  setText(view.owedMore.lastElementChild, `${more} more, younger ones`);
  view.owedNone.hidden = lines.length > 0;
}

function owedLine(debt, model, seat) {
  const lane = debt.to === "all" ? "anybody" : debt.to.startsWith("#") ? `anybody in ${debt.to}` : null;
  const tag = (name) => (name === "human" ? el("b", {}, nameOfScope(model, name)) : nameTag(name, hueOf(model, name)));
  const part = { debt, age: el("span", { class: "facts" }), acts: [] };
  const show = () => act({ go: ["message", part.debt.id, part.debt.seq] }, seat);
  const press = (event, at) => {
    if (event.currentTarget.getAttribute("aria-disabled") === "true") return;
    act(part.debt.acts[at], seat);
    if (part.debt.acts[at].frame?.settles && event.detail === 0) focusAfter(node); // by a key
  };
  if (isOperator(model)) part.acts = debt.acts.map((_, at) => button(debt.acts[at].word, null, { class: "quiet", title: debt.acts[at].title, onclick: (event) => press(event, at) }));
  const node = el("li", { class: "owe", data: { seq: String(debt.seq) } },
    el("p", { class: "owe-who" }, lane ? el("b", {}, lane) : tag(debt.to), debt.to === "human" && isOperator(model) ? " owe " : " owes ", tag(debt.asker), " ", part.age),
    el("button", { type: "button", class: "owe-words quiet", title: "Go to the message", onclick: show }, el("bdi", {}, drawLine(lineOf(debt.text, 200), { hasLinks: false }))),
    el("div", { class: "owe-acts" }, part.acts));
  parts.set(node, part);
  return node;
}

function act(one, seat) {
  if (one.go) document.getElementById("needs-all").hidePopover();
  if (one.go) seat.go(...one.go);
  else seat.act(one.frame);
}

/** To the same deed on the next question that is open; after the last, to the heading. */
function focusAfter(node) {
  const after = (step) => { let next = node[step]; while (next?.hasAttribute("data-done")) next = next[step]; return next; };
  const next = after("nextElementSibling") ?? after("previousElementSibling");
  (next?.querySelector(".owe-acts button:last-child") ?? document.querySelector(".owed-title")).focus();
}

/** A deed on a question cannot be done twice while it is under way: its button waits until the hub confirms, and keeps the focus. */
function refreshOwed(node, debt, model, now, seat) {
  const part = parts.get(node);
  part.debt = debt;
  node.toggleAttribute("data-done", Boolean(debt.isDone));
  const nudge = debt.nudgedAt === null ? null : Math.max(0, now - debt.nudgedAt) / 1000;
  setText(part.age, debt.isDone ? "no more" : `for ${ageText((now - debt.since) / 1000)}${nudge === null ? "" : `, nudged ${ageText(nudge)} ago`}`);
  const isAsked = seat.deeds.list.some((deed) => deed.state === "asked" && [deed.frame.settles, deed.frame.reply_to].includes(debt.seq));
  for (const [at, control] of part.acts.entries()) {
    const isAgain = debt.acts[at].word === "Nudge" && nudge !== null && nudge < NUDGE_S;
    setAttribute(control, "aria-disabled", String(!isOpen(model) || isAsked || isAgain || Boolean(debt.isDone)));
  }
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
