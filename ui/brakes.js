// Brakes: the room's mode, and the operator's four actions on it. An action shows as asked until the room shows it done.

import { button, el, keyed, setIcon, setText } from "./dom.js";
import { heldBack, stopReach, waiting } from "./deeds.js";
import { isOpen, isOperator } from "./model.js";

const MODES = {
  running: ["Running", "play", "Agents may speak."],
  paused: ["Paused", "pause", "What agents say waits; only the operator is heard."],
  stopped: ["Stopped", "stop", "Every agent is told to end its work; nobody but the operator may speak."],
};

// action -> what it is called and does, and from which modes
const ACTIONS = [
  { action: "pause", word: "Pause", icon: "pause", from: ["running"], keys: ["Shift P"], does: "Hold what agents say. Nothing is lost, and you are still heard." },
  { action: "resume", word: "Resume", icon: "play", from: ["paused"], keys: ["Shift R", "Shift P"], does: "Let the room run again and deliver what was held." },
  { action: "stop", word: "Stop all", icon: "stop", from: ["running", "paused"], keys: ["Shift S"], tone: "danger", does: "Tell every agent to end its work." },
  { action: "reset", word: "Reset", icon: "reset", from: ["stopped"], keys: ["Shift R"], does: "Open a stopped room again." },
];

const views = new WeakMap();

export function render(root, model, send, now, seat) {
  const view = views.get(root) ?? open(root);
  const known = Object.hasOwn(MODES, model.mode ?? "");
  const [word, iconName, meaning] = known ? MODES[model.mode] : ["Unknown", "help", "The hub has not told its mode yet."];
  if (view.shown !== model.mode) {
    view.shown = model.mode;
    view.mode.dataset.mode = model.mode ?? "unknown";
    view.mode.title = meaning;
    setIcon(view.mode, iconName);
    setText(view.word, word);
  }
  const reach = stopReach(model);
  setText(view.reach, reach ? `${reach.told.length} of ${reach.told.length + reach.untold.length} reached${heldBack(model)}` : "");
  const asked = waiting(seat.deeds, "action");
  keyed(view.buttons, isOperator(model) ? ACTIONS : [], (item) => item.action,
    (item) => button(item.word, item.icon, {
      id: item.action, title: `${item.does} (${item.keys[0]})`, onclick: () => seat.act({ action: item.action }), data: { tone: item.tone ?? "calm" },
    }),
    (node, item) => {
      const isAsked = asked?.frame.action === item.action;
      node.disabled = !isOpen(model) || !item.from.includes(model.mode) || asked !== null;
      node.toggleAttribute("aria-busy", isAsked);
      setText(node.lastElementChild, isAsked ? "Asked…" : item.word);
    });
  view.observing.hidden = model.link.role !== "observer";
}

/** Press the brake that a key stands for, if it is there and free. */
export function press(key) {
  const free = ACTIONS.filter((item) => item.keys.includes(key)).map((item) => document.getElementById(item.action)).find((node) => node && !node.disabled);
  free?.click();
}

function open(root) {
  const view = { word: el("span"), reach: el("span", { class: "reach" }), buttons: el("div", { class: "brake-buttons", role: "group", "aria-label": "The room" }) };
  view.mode = el("div", { id: "mode", data: { mode: "unknown" } }, view.word, view.reach);
  view.observing = el("div", { class: "observing", hidden: true }, "Observing: you see everything and control nothing");
  setIcon(view.observing, "eye");
  root.append(view.mode, view.buttons, view.observing);
  views.set(root, view);
  return view;
}
