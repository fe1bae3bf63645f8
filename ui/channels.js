// Channels and talking sticks: the scopes of the room, who is in them, and who alone may speak there.

import { ask, button, el, emptyNote, icon, keyed, nameTag, setText } from "./dom.js";
import { ageText, hueOf, isOpen, isOperator } from "./model.js";

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

export function render(root, model, send) {
  const view = views.get(root) ?? open(root, "No channel is open. An agent opens one by speaking in it.");
  const operator = isOperator(model);
  if (view.channels === model.channels && view.operator === operator && view.open === isOpen(model)) return;
  Object.assign(view, { channels: model.channels, operator, open: isOpen(model) });
  const list = Object.entries(model.channels).map(([name, channel]) => ({ name, ...channel }));
  keyed(view.list, list, (channel) => `${channel.name} ${operator}`, (channel) => channelCard(channel.name, operator, send), (node, channel) => {
    const part = parts.get(node);
    setText(part.topic, channel.topic ?? "");
    part.topic.hidden = !channel.topic;
    names(part.members, channel.members, model);
    if (part.close) part.close.disabled = !view.open;
  });
  view.empty.hidden = list.length > 0;
  setText(document.getElementById("channels-count"), list.length ? `${list.length} open` : "");
}

function channelCard(name, operator, send) {
  const part = { topic: el("p", { class: "topic", dir: "auto" }), members: el("ul", { class: "names", "aria-label": `Members of ${name}` }),
    close: operator && button(`Close ${name}`, "close", { class: "close-channel", data: { tone: "danger" }, onclick: () => closeChannel(name, send) }, true) };
  const node = el("li", { class: "card channel", data: { channel: name } },
    el("div", { class: "card-head" }, el("bdi", { class: "scope", title: name }, name), part.close),
    part.topic, part.members);
  parts.set(node, part);
  return node;
}

async function closeChannel(name, send) {
  const yes = await ask({
    title: `Close ${name}?`,
    text: "Every member is taken out and its talking stick is put away. What was said stays in the flow; any agent may open the channel again by speaking in it.",
    verb: "Close the channel",
  });
  if (yes) send({ close_channel: name });
}

// ---- talking sticks ---------------------------------------------------------------------------------------------

export function renderFloors(root, model, send, now) {
  const view = views.get(root) ?? open(root, "No stick is held: everyone may speak.");
  const operator = isOperator(model);
  const list = Object.values(model.floors);
  if (list.length === 0 && view.floors === model.floors) return;
  view.floors = model.floors;
  keyed(view.list, list, (floor) => `${floor.scope} ${operator}`, (floor) => floorCard(floor.scope, operator, send), (node, floor) => {
    const part = parts.get(node);
    keyed(part.holder, [floor.holder], (name) => name, (name) => nameTag(name, hueOf(model, name)));
    setText(part.reason, floor.reason ?? "");
    part.reason.hidden = !floor.reason;
    setText(part.since, `for ${ageText(now / 1000 - floor.since)}`);
    part.queue.hidden = floor.hands.length === 0;
    names(part.hands, floor.hands, model);
    if (part.clear) part.clear.disabled = !isOpen(model);
  });
  view.empty.hidden = list.length > 0;
}

function floorCard(scope, operator, send) {
  const where = scope === "all" ? "the whole room" : scope;
  const part = { holder: el("span"), reason: el("p", { class: "topic", dir: "auto" }), since: el("span", { class: "facts" }),
    hands: el("ol", { class: "names" }),
    clear: operator && button("Clear", "close", { class: "clear-floor", title: `Put away the stick of ${where}: everyone may speak there again`,
      onclick: () => send({ floor: { action: "clear", scope } }) }) };
  part.queue = el("div", { class: "hands" }, el("span", { class: "facts" }, "next:"), part.hands);
  const node = el("li", { class: "card floor", data: { scope } },
    el("div", { class: "card-head" }, icon("stick"), el("bdi", { class: "scope" }, where), part.since),
    el("p", { class: "holder" }, "held by ", part.holder),
    part.reason, part.queue,
    part.clear && el("div", { class: "card-foot" }, el("span"), part.clear));
  parts.set(node, part);
  return node;
}
