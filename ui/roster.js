// Roster: a line for each peer: how it is, what it costs, and marks of what is amiss. A click or Enter opens the rest of it:
// what it does, what it said, what waits for it, and the operator's controls of it.

import { button, el, emptyNote, icon, keyed, nameTag, setAttribute, setIcon, setText } from "./dom.js";
import { shownState, wordsOf } from "./deeds.js";
import { setLine } from "./markdown.js";
import { budgetWords } from "./spent.js";
import {
  ARROW, UNWOKEN_S, ageText, amount, hueOf, isLosing, isOpen, isOperator, many, passedSince, priceText, stateWord, usageExactly, usageText,
} from "./model.js";

const SHOWN = 200; // cards at first, and so many more each time: of thousands nobody reads all, and a browser draws them slowly

const views = new WeakMap();

export function render(root, model, send, now, seat) {
  const view = views.get(root) ?? open(root);
  Object.assign(view, { model, operator: isOperator(model), open: isOpen(model), quietAfter: model.quietAfter, seat, now });
  view.loops = loopsOfPairs(model);
  drawCards(view);
  view.empty.hidden = model.peers.length > 0;
  const live = model.peers.filter((peer) => peer.state === "live").length;
  setText(view.counter, model.peers.length ? `${live} live${live < model.peers.length ? `, ${model.peers.length - live} away` : ""}` : "");
}

function drawCards(view) {
  const { model, now } = view;
  keyed(view.list, model.peers.slice(0, view.shown), (peer) => `${peer.name} ${view.operator}`,
    (peer) => card(peer, hueOf(model, peer.name), view),
    (node, peer) => refresh(node, peer, passedSince(model, peer, now), view));
  const rest = model.peers.length - view.shown;
  view.more.hidden = rest <= 0;
  setText(view.more, `Show ${amount(Math.min(rest, SHOWN))} more of ${amount(rest)}`);
}

function showMore(view, count) {
  view.shown += count;
  drawCards(view);
}

/** Bring a peer's card into view and point it out. */
export function reveal(root, name) {
  const view = views.get(root);
  const place = view ? view.model.peers.findIndex((peer) => peer.name === name) : -1;
  if (place >= view?.shown) showMore(view, place + 1 - view.shown);
  const node = [...root.querySelectorAll(".peer")].find((one) => one.dataset.peer === name);
  if (node) unfold(view, node, true);
  node?.scrollIntoView({ block: "nearest" });
  node?.querySelector("button")?.focus();
  node?.classList.remove("pointed");
  requestAnimationFrame(() => node?.classList.add("pointed"));
}

function open(root) {
  const view = { list: el("ul", { class: "cards peers" }), counter: document.getElementById("peers-count"), shown: SHOWN,
    unfolded: new Set(), // names of the peers whose details are shown
    more: el("button", { type: "button", class: "quiet more-peers", hidden: true, onclick: () => showMore(view, SHOWN) }),
    empty: emptyNote("No peer has joined yet. An agent that joins takes its seat here.") };
  root.append(view.empty, view.list, view.more);
  view.list.addEventListener("keydown", (event) => walk(view, event));
  views.set(root, view);
  return view;
}

const STEPS = { ArrowDown: 1, ArrowUp: -1 };

/** The arrows go from line to line. */
function walk(view, event) {
  if (!Object.hasOwn(STEPS, event.key) || !event.target.matches(".peer-line") || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const lines = [...view.list.querySelectorAll(".peer-line")];
  lines[lines.indexOf(event.target) + STEPS[event.key]]?.focus();
}

/** Show or hide the details of a peer. */
function unfold(view, node, isShown) {
  view.unfolded[isShown ? "add" : "delete"](node.dataset.peer);
  const part = parts.get(node);
  node.dataset.open = String(isShown);
  part.line.setAttribute("aria-expanded", String(isShown));
  part.more.hidden = !isShown;
}

const parts = new WeakMap(); // card -> the nodes that change

const chip = (name, iconName, text = "", title = "") => el("span", { class: `chip ${name}`, title: title || null }, icon(iconName), el("span", {}, text));

function card(peer, hue, view) {
  const part = {
    does: el("span", { class: "does", dir: "auto" }),
    status: el("p", { class: "status", dir: "auto" }, el("bdi"), el("span")),
    state: el("span", { class: "chip state" }, el("span")),
    wake: chip("wake", "ear"),
    cost: el("span", { class: "cost" }),
    ears: chip("ears", "ear"),
    held: chip("held", "pause", "paused", "You hold its mailbox"),
    heard: el("span", { class: "facts" }),
    quiet: chip("quiet-peer", "wait", "quiet"),
    mail: chip("mail", "mail"),
    loop: chip("loop-chip", "loop"),
    stop: chip("untold", "stop", "not told of the stop", "It has not called the hub since the stop"),
    spent: chip("spent", "gauge"),
    facts: el("p", { class: "facts here" }),
    usage: el("p", { class: "facts usage" }, el("span", { "aria-hidden": "true" }), el("span", { class: "unseen" })),
    budget: el("p", { class: "facts budget", hidden: true }),
    deed: el("p", { class: "facts deed" }),
  };
  part.line = el("button", { type: "button", class: "peer-line", onclick: () => unfold(view, node, !view.unfolded.has(peer.name)) },
    el("span", { class: "dot", style: { "--hue": String(hue) } }), nameTag(peer.name, hue), " ", part.does, " ",
    el("span", { class: "flags" }, part.mail, " ", part.loop, " ", part.quiet, " ", part.spent, " ", part.held, " ", part.stop), " ", part.wake, " ", part.cost, " ", part.state);
  part.more = el("div", { class: "peer-more" },
    part.status,
    el("div", { class: "chips" }, part.ears, part.heard),
    part.facts,
    part.usage,
    part.budget,
    view.operator && el("div", { class: "card-foot" }, controls(peer.name, part, view), part.deed));
  const node = el("li", { class: "card peer", data: { peer: peer.name } }, part.line, part.more);
  parts.set(node, part);
  unfold(view, node, view.unfolded.has(peer.name));
  return node;
}

/** Each acts through the seat, which asks first where it must. */
function controls(name, part, view) {
  const make = (word, iconName, cls, frame, tone = "calm") =>
    button(`${word} ${name}`, iconName, { class: cls, data: { tone }, onclick: () => view.seat.act(frame()) }, true);
  part.hold = make("Pause", "pause", "hold", () => (part.hold.dataset.does === "resume" ? { resume_peer: name } : { pause_peer: name }));
  part.write = button(`Write to ${name}`, "reply", { class: "write", onclick: () => view.seat.go("write", name) }, true);
  part.ping = make("Ping", "pulse", "ping", () => ({ heartbeat: name }));
  part.ring = make("Ring", "bell", "ring", () => ({ ring: name }));
  part.interrupt = make("Interrupt", "bolt", "interrupt", () => ({ command: "interrupt", to: name }));
  part.reset = make("Reset", "reset", "reset-peer", () => ({ command: "reset", to: name }));
  part.prompts = make("Prompts of", "gavel", "prompts", () => ({ prompts: { name, on: part.prompts.getAttribute("aria-pressed") !== "true" } }));
  part.kick = make("Kick", "kick", "kick", () => ({ kick: name }), "danger");
  part.interrupt.title = `Interrupt ${name}: tell it to drop what it is doing and wait, through any pause`;
  part.reset.title = `Reset ${name}: tell it to drop all and forget the exchange so far (asks first)`;
  part.ring.title = `Ring for ${name}: wake it now, to see that it can be woken`;
  part.ping.title = `Ping ${name}: ask the hub how it is`;
  part.kick.title = `Kick ${name}: end its seat (asks first)`;
  part.all = [part.hold, part.ping, part.ring, part.prompts, part.interrupt, part.reset, part.kick];
  return el("div", { class: "card-buttons", role: "group", "aria-label": `Controls of ${name}` }, part.write, part.all);
}

function refresh(node, peer, passed, view) {
  const part = parts.get(node);
  node.dataset.state = peer.state;
  node.dataset.paused = String(Boolean(peer.paused));
  node.dataset.listening = String(Boolean(peer.listening));
  const loses = isLosing(peer, view.now);
  setText(part.state.lastElementChild, loses ? "losing mail" : stateWord(peer.state));
  part.state.dataset.state = loses ? "losing" : peer.state;
  part.state.title = loses ? `Its mailbox is full: ${amount(peer.lost.count)} lost so far` : peer.state === "reaped" ? "Silent for too long. Its mailbox is kept; it may come back." : "";
  const hears = Boolean(peer.listening || (peer.wake?.kind === "waits"));
  for (const mark of [part.ears, part.wake].filter(({ dataset }) => dataset.on !== String(hears))) {
    mark.dataset.on = String(hears);
    setIcon(mark, hears ? "ear" : "deaf");
  }
  const ears = earsOf(peer, passed, view.now);
  setText(part.ears.lastElementChild, ears);
  part.wake.dataset.failed = String(ears.startsWith("did not wake"));
  setAttribute(part.wake, "title", ears);
  setText(part.wake.lastElementChild, shortEarsOf(peer, passed, view.now));
  part.wake.hidden = part.ears.hidden = part.heard.hidden = peer.listening === null; // of the past nobody knows
  part.held.hidden = !peer.paused;
  const loops = view.loops.get(peer.name) ?? "";
  part.loop.hidden = loops === "";
  setText(part.loop.lastElementChild, loops);
  part.loop.title = `They go round in circles, or went so: ${loops}`;
  part.quiet.hidden = !peer.quiet;
  part.quiet.title = `Neither a call nor a new status for ${ageText(view.quietAfter)} or more`;
  part.stop.hidden = peer.stop_told !== false;
  refreshMail(part.mail, peer);
  setLine(part.does, peer.status ?? "", { hasLinks: false });
  setAttribute(part.line, "title", peer.status ? `${peer.name}: ${peer.status}` : peer.name);
  part.status.hidden = !peer.status;
  setLine(part.status.firstElementChild, peer.status ?? "");
  setText(part.status.lastElementChild, peer.status ? ` · ${ageText(peer.status_age + passed)} ago` : "");
  part.status.classList.toggle("stale", Boolean(peer.status_stale));
  setText(part.heard, `heard ${ageText(peer.listening ? 0 : peer.last_seen_age + passed)} ago`);
  setText(part.facts, factsOf(peer, passed) + brakeOf(peer.brake, view.now));
  refreshUsage(part, peer.usage);
  const spent = budgetWords(view.model, peer.name);
  part.budget.hidden = part.spent.hidden = !spent;
  setText(part.budget, spent);
  setText(part.spent.lastElementChild, spent.split(":")[0].toLowerCase());
  part.spent.title = spent;
  if (view.operator) refreshControls(part, peer, view);
}

const LOOP_WORDS = { held: "held", closed: "closed", free: "may run" };

/** What a peer's lanes with others have come to: name -> "held with bob". */
function loopsOfPairs({ loops }) {
  const words = new Map();
  for (const { lane, state, level } of loops.lanes.filter((one) => one.lane.includes(ARROW))) {
    const pair = lane.split(ARROW);
    const word = LOOP_WORDS[state] ?? (level === "slow" ? "slowed" : "in circles");
    for (const [at, name] of pair.entries()) words.set(name, [words.get(name), `${word} with ${pair[1 - at]}`].filter(Boolean).join(", "));
  }
  return words;
}

const DEAF_SHOWN_S = 10; // shorter is the pause between two polls

function earsOf(peer, passed, now) {
  if (peer.listening) return "listening";
  if (peer.wake) return wakeOf(peer.wake, now / 1000);
  const deaf = (peer.deaf_age ?? 0) + passed;
  return deaf < DEAF_SHOWN_S ? "not listening" : `not listening for ${ageText(deaf)}`;
}

/** The same for a line: when its host was proven to wake it, or how long it has been deaf; the icon says which. */
function shortEarsOf({ listening, wake, deaf_age: age }, passed, now) {
  if (listening) return "";
  if (!wake) return (age ?? 0) + passed < DEAF_SHOWN_S ? "" : ageText((age ?? 0) + passed);
  if (wake.open_ts !== null) return ageText(Math.max(0, now / 1000 - wake.open_ts));
  return wake.kind === "waits" ? (wake.latency === null ? "?" : latencyText(wake.latency)) : "";
}

const latencyText = (latency) => `${latency < 10 ? latency.toFixed(1) : Math.round(latency)} s`;

const WAITERS = { "nobody waits": "nobody waits for its mail", "turn end": "gets mail when its turn ends" };

/** How its host is told of mail: what is proven, and since when; never more. */
function wakeOf(wake, now) {
  const open = wake.open_ts === null ? null : Math.max(0, now - wake.open_ts);
  if (open !== null) return open < UNWOKEN_S ? `woken ${ageText(open)} ago, no call yet` : `did not wake (${ageText(open)})`;
  if (wake.kind !== "waits") return WAITERS[wake.kind] ?? wake.kind;
  if (wake.latency === null) return "can be woken, not proven yet";
  return `wakes in ${latencyText(wake.latency)} (proven ${ageText(Math.max(0, now - wake.proven_ts))} ago)`;
}

/** What its host's hook holds back, as the hub has seen it. */
function brakeOf(brake, now) {
  if (!brake) return "";
  if (!brake.denied) return " · brakes fitted";
  return ` · ${many(brake.denied, "tool")} held back, ${brake.tool} ${ageText(Math.max(0, now / 1000 - brake.ts))} ago`;
}

function factsOf(peer, passed) {
  const chars = peer.char_count === undefined ? "" : `, ${amount(peer.char_count)} chars`;
  return `${amount(peer.msg_count)} said${chars} · here ${ageText((peer.uptime ?? 0) + passed)}`;
}

/** Short for the eye; exact, with the model's name, in the title and for who listens to the page. */
function refreshUsage({ usage: node, cost }, usage) {
  node.hidden = !usage;
  const whole = usage ? `Its model${usage.model ? ` ${usage.model}` : ""}: ${usageExactly(usage)}` : "";
  setText(node.firstElementChild, usage ? usageText(usage) : "");
  setText(node.lastElementChild, whole);
  setAttribute(node, "title", whole);
  setText(cost, usage ? priceText(usage) : "");
  setAttribute(cost, "title", whole);
}

function refreshMail(node, { waiting = 0, unacknowledged = 0, held = 0 }) {
  node.hidden = waiting + unacknowledged === 0;
  node.classList.toggle("heap", waiting > 0);
  const words = [waiting && `${amount(waiting)} waiting${held ? `, ${amount(held)} of them held` : ""}`, unacknowledged && `${amount(unacknowledged)} not confirmed`];
  setText(node.lastElementChild, words.filter(Boolean).join(", "));
  setAttribute(node, "title", `In its mailbox: ${node.textContent}`);
}

function refreshControls(part, peer, view) {
  const does = peer.paused ? "resume" : "pause";
  if (part.hold.dataset.does !== does) {
    part.hold.dataset.does = does;
    setIcon(part.hold, peer.paused ? "play" : "pause");
    part.hold.title = peer.paused ? `Resume ${peer.name}: deliver what was held` : `Pause ${peer.name}: hold its mailbox`;
    part.hold.setAttribute("aria-label", part.hold.title);
  }
  const deed = view.seat.deeds.list.find((one) => one.subject === peer.name) ?? null;
  const isAsked = deed?.state === "asked";
  part.ring.hidden = !peer.wake;
  part.prompts.hidden = !view.model.link.auth; // without an operator token an agent could answer for itself
  part.prompts.setAttribute("aria-pressed", String(Boolean(peer.prompts)));
  part.prompts.title = peer.prompts ? `Leave permission prompts of ${peer.name} to its terminal` : `Take permission prompts of ${peer.name}: its host must have the hook`;
  for (const control of part.all) control.disabled = !view.open || isAsked;
  part.deed.dataset.state = shownState(deed, view.now, deed?.untold.length === 0);
  setText(part.deed, part.deed.dataset.state ? `${deed.word.replace(` ${peer.name}`, "")}: ${wordsOf(deed, view.now)}` : "");
}
