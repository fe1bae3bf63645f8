// Channels and talking sticks: the scopes of the room, who is in them, and who alone may speak there.

import { button, el, emptyNote, icon, keyed, nameTag, setText } from "./dom.js";
import { setLine } from "./markdown.js";
import { ageText, amount, hueOf, isOpen, isOperator, loopOf, perMinute } from "./model.js";
import { stateOfLoop } from "./needs.js";

const views = new WeakMap();
const parts = new WeakMap(); // card -> the nodes that change

function open(root, emptyText) {
  const view = { list: el("ul", { class: "cards" }), empty: emptyNote(emptyText) };
  root.append(view.empty, view.list);
  views.set(root, view);
  return view;
}

/** Names as coloured tags, one node each as long as the name stays. */
function names(box, list, model) {
  keyed(box, list, (name) => name, (name) => el("li", {}, nameTag(name, hueOf(model, name))));
}

// ---- channels ---------------------------------------------------------------------------------------------------

export function render(root, model, send, now, seat) {
  const view = views.get(root) ?? open(root, "No channel is open. An agent opens one by speaking in it.");
  const operator = isOperator(model);
  view.seat = seat;
  const list = Object.entries(model.channels).map(([name, channel]) => ({ name, ...channel }));
  keyed(view.list, list, (channel) => `${channel.name} ${operator}`, (channel) => channelCard(channel.name, operator, view), (node, channel) => {
    const part = parts.get(node);
    setLine(part.topic, channel.topic ?? "");
    part.topic.hidden = !channel.topic;
    const loop = loopOf(model, channel.name);
    part.loop.hidden = !loop;
    if (loop) setText(part.loop.lastElementChild, stateOfLoop(loop));
    setText(part.traffic, trafficOf(model, channel, now));
    names(part.members, channel.members, model);
    if (part.close) part.close.disabled = !isOpen(model);
  });
  view.empty.hidden = list.length > 0;
  setText(document.getElementById("channels-count"), list.length ? `${list.length} open` : "");
}

/** Traffic in words; a hub that does not count it says nothing. */
function trafficOf(model, channel, now) {
  if (channel.msg_count === undefined) return "";
  if (!channel.msg_count) return "Nothing said yet";
  const last = channel.last_ts ? ` · last ${ageText(now / 1000 - channel.last_ts)} ago` : "";
  return `${amount(channel.msg_count)} said, ${amount(channel.char_count)} characters, ${amount(perMinute(model, channel.name, now))}/min${last}`;
}

function channelCard(name, operator, view) {
  const part = {
    topic: el("p", { class: "topic", dir: "auto" }),
    traffic: el("p", { class: "facts traffic" }),
    loop: el("p", { class: "chip loop-chip", title: "It goes round in circles, or went so", hidden: true }, icon("loop"), el("span")),
    members: el("ul", { class: "names", "aria-label": `Members of ${name}` }),
    close: operator && button(`Close ${name}`, "close",
      { class: "close-channel", data: { tone: "danger" }, onclick: () => view.seat.act({ close_channel: name }) }, true),
  };
  const write = operator && button(`Write to ${name}`, "reply", { class: "write", onclick: () => view.seat.go("write", name) }, true);
  const node = el("li", { class: "card channel", data: { channel: name } },
    el("div", { class: "card-head" }, el("span", { class: "scope-box" }, el("button", { type: "button", class: "only-link", title: `Show ${name} alone in the flow`, data: { only: name } }, el("bdi", { class: "scope" }, name))), write, part.close),
    part.topic, part.loop, part.members, part.traffic);
  parts.set(node, part);
  return node;
}

// ---- talking sticks ---------------------------------------------------------------------------------------------

export function renderFloors(root, model, send, now, seat) {
  const view = views.get(root) ?? open(root, "No stick is held: everyone may speak.");
  const operator = isOperator(model);
  view.seat = seat;
  const list = Object.values(model.floors);
  keyed(view.list, list, (floor) => `${floor.scope} ${operator}`, (floor) => floorCard(floor.scope, operator, view), (node, floor) => {
    const part = parts.get(node);
    keyed(part.holder, [floor.holder], (name) => name, (name) => nameTag(name, hueOf(model, name)));
    setLine(part.reason, floor.reason ?? "");
    part.reason.hidden = !floor.reason;
    setText(part.since, `for ${ageText(now / 1000 - floor.since)}`);
    part.queue.hidden = floor.hands.length === 0;
    names(part.hands, floor.hands, model);
    if (part.clear) part.clear.disabled = !isOpen(model);
  });
  view.empty.hidden = list.length > 0;
}

function floorCard(scope, operator, view) {
  const where = scope === "all" ? "the whole room" : scope;
  const part = { holder: el("span"), reason: el("p", { class: "topic", dir: "auto" }), since: el("span", { class: "facts" }),
    hands: el("ol", { class: "names" }),
    clear: operator && button("Clear", "close", { class: "clear-floor", title: `Put away the stick of ${where}: everyone may speak there again`,
      onclick: () => view.seat.act({ floor: { action: "clear", scope } }) }) };
  part.queue = el("div", { class: "hands" }, el("span", { class: "facts" }, "next:"), part.hands);
  const node = el("li", { class: "card floor", data: { scope } },
    el("div", { class: "card-head" }, icon("stick"), el("bdi", { class: "scope" }, where), part.since),
    el("p", { class: "holder" }, "held by ", part.holder),
    part.reason, part.queue,
    part.clear && el("div", { class: "card-foot" }, el("span"), part.clear));
  parts.set(node, part);
  return node;
}
