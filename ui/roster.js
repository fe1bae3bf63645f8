// Roster: the room's health in figures, and a card for each peer.

import { ask, button, el, emptyNote, icon, keyed, nameTag, setIcon, setText } from "./dom.js";
import { ageText, hueOf, isOpen, isOperator, stateWord } from "./model.js";

// ---- health -----------------------------------------------------------------------------------------------------

const FIGURES = [
  ["uptime", "Uptime", (health) => ageText(health.uptime)],
  ["peer_count", "Peers", (health) => String(health.peer_count)],
  ["msg_per_min", "Messages / min", (health) => String(health.msg_per_min)],
  ["queue_depth", "Queued", (health) => String(health.queue_depth)],
  ["mem_rss_mb", "Memory", (health) => `${Math.round(health.mem_rss_mb)} MB`],
  ["rate", "Rate per peer", (health, rate) => `${rate.refill_rate}/s, burst ${rate.capacity}`],
];

export function renderHealth(root, model) {
  const known = FIGURES.filter(([key]) => (key === "rate" ? model.rate : model.health?.[key] !== undefined && model.health[key] !== null));
  keyed(root, known, ([key]) => key,
    ([key, label]) => el("div", { class: "figure", data: { figure: key } }, el("span", { class: "figure-label" }, label), el("span", { class: "figure-value" })),
    (node, [, , text]) => setText(node.lastElementChild, text(model.health, model.rate)));
}

// ---- peers ------------------------------------------------------------------------------------------------------

const views = new WeakMap();

export function render(root, model, send, now) {
  const view = views.get(root) ?? open(root);
  const changed = view.peers !== model.peers || view.operator !== isOperator(model) || view.open !== isOpen(model);
  if (!changed && isOpen(model)) return; // ages come with the health frames; only a cut line has to count by itself
  Object.assign(view, { peers: model.peers, operator: isOperator(model), open: isOpen(model) });
  const passed = Math.max(0, (now - model.peersAt) / 1000);
  keyed(view.list, model.peers, (peer) => `${peer.name} ${view.operator}`, (peer) => card(peer, hueOf(model, peer.name), view, send), (node, peer) => refresh(node, peer, passed, view));
  view.empty.hidden = model.peers.length > 0;
  const live = model.peers.filter((peer) => peer.state === "live").length;
  setText(view.counter, model.peers.length ? `${live} live${live < model.peers.length ? `, ${model.peers.length - live} away` : ""}` : "");
}

function open(root) {
  const view = { list: el("ul", { class: "cards" }), counter: document.getElementById("peers-count"),
    empty: emptyNote("No peer has joined yet. An agent that joins takes its seat here.") };
  root.append(view.empty, view.list);
  views.set(root, view);
  return view;
}

const parts = new WeakMap(); // card -> the nodes that change

function card(peer, hue, view, send) {
  const part = { status: el("p", { class: "status", dir: "auto" }), state: el("span", { class: "chip state" }, el("span")), ears: el("span", { class: "chip ears" }, el("span")),
    held: el("span", { class: "chip held" }, icon("pause"), "paused"), quiet: el("span", { class: "chip quiet-peer", title: "No sign of life for some minutes" }, "quiet"),
    facts: el("p", { class: "facts" }) };
  const node = el("li", { class: "card peer", data: { peer: peer.name } },
    el("div", { class: "card-head" }, el("span", { class: "dot", style: { "--hue": String(hue) } }), nameTag(peer.name, hue), part.state),
    part.status,
    el("div", { class: "card-foot" }, el("div", { class: "chips" }, part.ears, part.held, part.quiet), view.operator && controls(peer.name, part, send)),
    part.facts);
  parts.set(node, part);
  return node;
}

function controls(name, part, send) {
  part.hold = button(`Pause ${name}`, "pause", { class: "hold" }, true);
  part.hold.addEventListener("click", () => send(part.hold.dataset.does === "resume" ? { resume_peer: name } : { pause_peer: name }));
  part.ping = button(`Ping ${name}`, "pulse", { class: "ping", onclick: () => send({ heartbeat: name }) }, true);
  part.kick = button(`Kick ${name}`, "kick", { class: "kick", data: { tone: "danger" }, onclick: () => kick(name, send) }, true);
  return el("div", { class: "card-buttons", role: "group", "aria-label": `Controls of ${name}` }, part.hold, part.ping, part.kick);
}

async function kick(name, send) {
  const yes = await ask({
    title: `Kick ${name}?`,
    text: `${name} loses its seat at once: it can neither speak nor listen, its raised hands and sticks are given up, and what waits in its mailbox is lost. `
      + "The name is free; it may join again as a newcomer.",
    verb: "Kick",
  });
  if (yes) send({ kick: name });
}

function refresh(node, peer, passed, view) {
  const part = parts.get(node);
  node.dataset.state = peer.state;
  node.dataset.paused = String(Boolean(peer.paused));
  node.dataset.listening = String(Boolean(peer.listening));
  setText(part.state.lastElementChild, stateWord(peer.state));
  part.state.dataset.state = peer.state;
  part.state.title = peer.state === "reaped" ? "Silent for too long. Its mailbox is kept; it may come back." : "";
  if (part.ears.dataset.on !== String(peer.listening)) {
    part.ears.dataset.on = String(peer.listening);
    setIcon(part.ears, peer.listening ? "ear" : "deaf");
    setText(part.ears.lastElementChild, peer.listening ? "listening" : "not listening");
  }
  part.held.hidden = !peer.paused;
  part.quiet.hidden = !peer.quiet;
  part.status.hidden = !peer.status;
  setText(part.status, peer.status ? `${peer.status} · ${ageText(peer.status_age + passed)} ago` : "");
  part.status.classList.toggle("stale", Boolean(peer.status_stale));
  setText(part.facts, `${peer.msg_count} said · heard ${ageText(peer.last_seen_age + passed)} ago`);
  if (view.operator) refreshControls(part, peer, view.open);
}

function refreshControls(part, peer, isLineOpen) {
  const does = peer.paused ? "resume" : "pause";
  if (part.hold.dataset.does !== does) {
    part.hold.dataset.does = does;
    setIcon(part.hold, peer.paused ? "play" : "pause");
    part.hold.title = peer.paused ? `Resume ${peer.name}: deliver what was held` : `Pause ${peer.name}: hold its mailbox`;
    part.hold.setAttribute("aria-label", part.hold.title);
  }
  for (const control of [part.hold, part.ping, part.kick]) control.disabled = !isLineOpen;
}
