// Brakes: the room's mode, and the operator's four actions on it. An action shows as asked until the hub confirms it.

import { ask, button, el, keyed, setIcon, setText } from "./dom.js";
import { isOpen, isOperator } from "./model.js";

const MODES = {
  running: ["Running", "play", "Agents may speak."],
  paused: ["Paused", "pause", "What agents say waits; only the operator is heard."],
  stopped: ["Stopped", "stop", "Every agent is told to end its work; nobody but the operator may speak."],
};

// action -> what it is called, when it makes sense, what to ask first
const ACTIONS = [
  { action: "pause", word: "Pause", icon: "pause", from: ["running"], key: "p",
    does: "Hold what agents say. Nothing is lost, and you are still heard." },
  { action: "resume", word: "Resume", icon: "play", from: ["paused"], key: "p",
    does: "Let the room run again and deliver what was held." },
  { action: "stop", word: "Stop all", icon: "stop", from: ["running", "paused"], key: "s", tone: "danger",
    does: "Tell every agent to end its work.",
    ask: (model) => ({
      title: "Stop the whole room?",
      text: `${agents(model)} told at once to end the work and to say nothing more. Talking sticks are put away. `
        + "Only you may speak until you reset the room. Nothing said so far is lost.",
      verb: "Stop all",
    }) },
  { action: "reset", word: "Reset", icon: "reset", from: ["stopped"], key: "r",
    does: "Open a stopped room again.",
    ask: () => ({
      title: "Reset the room?",
      text: "The room runs again and agents may speak. An agent that ended its work at the stop does not come back by itself: "
        + "someone has to start it.",
      verb: "Reset", tone: "calm",
    }) },
];

function agents(model) {
  const live = model.peers.filter((peer) => peer.state === "live").length;
  return live === 1 ? "The one live peer is" : `All ${live} live peers are`;
}

const views = new WeakMap();

export function render(root, model, send) {
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
  keyed(view.buttons, isOperator(model) ? ACTIONS : [], (item) => item.action,
    (item) => button(item.word, item.icon, {
      id: item.action, title: `${item.does} (${item.key})`, onclick: () => act(item, view.model, send), data: { tone: item.tone ?? "calm" },
    }),
    (node, item) => {
      node.disabled = !isOpen(model) || !item.from.includes(model.mode) || model.asked !== null;
      node.toggleAttribute("aria-busy", model.asked === item.action);
      setText(node.lastElementChild, model.asked === item.action ? "Asked…" : item.word);
    });
  view.observing.hidden = model.link.role !== "observer";
  view.model = model;
}

/** Press the brake that a key stands for, if it is there and free. */
export function press(key) {
  const free = ACTIONS.filter((item) => item.key === key).map((item) => document.getElementById(item.action)).find((node) => node && !node.disabled);
  free?.click();
}

function open(root) {
  const view = { word: el("span"), buttons: el("div", { class: "brake-buttons", role: "group", "aria-label": "The room" }) };
  view.mode = el("div", { id: "mode", data: { mode: "unknown" } }, view.word);
  view.observing = el("div", { class: "observing", hidden: true }, "Observing: you see everything and control nothing");
  setIcon(view.observing, "eye");
  root.append(view.mode, view.buttons, view.observing);
  views.set(root, view);
  return view;
}

async function act(item, model, send) {
  if (item.ask && !(await ask(item.ask(model)))) return;
  send({ action: item.action });
}
