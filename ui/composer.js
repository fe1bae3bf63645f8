// Composer: the operator speaks. Where the next message goes is always in sight and changes only by the operator's hand.

import { button, el, keyed } from "./dom.js";
import { isOpen, isOperator } from "./model.js";

const DRAFT_KEY = "caucus.draft"; // a draft survives a reload of the tab
const HEIGHT_MAX_PX = 220;

const views = new WeakMap();

export function render(root, model, send) {
  let view = views.get(root) ?? null;
  if (!isOperator(model)) {
    if (view) root.replaceChildren();
    views.delete(root);
    root.hidden = true;
    return;
  }
  view ??= open(root, send);
  root.hidden = false;
  if (view.peers !== model.peers || view.channels !== model.channels) {
    Object.assign(view, { peers: model.peers, channels: model.channels });
    refreshTargets(view, model);
  }
  const target = view.target.value;
  view.send.disabled = !isOpen(model);
  view.text.placeholder = isOpen(model) ? `Say something to ${target === "all" ? "everyone" : target}` : "The hub is out of reach; you can go on typing";
  root.dataset.audience = target === "all" ? "broadcast" : target.startsWith("#") ? "channel" : "direct";
  if (view.noticeCount !== model.noticeCount) giveBack(view, model);
}

function open(root, send) {
  const view = { root, sent: [], history: 0, names: "", noticeCount: 0,
    everyone: el("optgroup", { label: "The room" }), peersGroup: el("optgroup", { label: "Peers" }), channelsGroup: el("optgroup", { label: "Channels" }) };
  view.target = el("select", { id: "target", "aria-label": "Send to" }, view.everyone, view.peersGroup, view.channelsGroup);
  view.text = el("textarea", { rows: "1", "aria-label": "Message to the room", "aria-keyshortcuts": "Enter", dir: "auto",
    onkeydown: (event) => onKey(event, view, send), oninput: () => { fit(view); keepDraft(view); } });
  view.send = button("Send", "send", { id: "say", class: "strong", title: "Send (Enter)", onclick: () => say(view, send) });
  view.text.value = sessionStorage.getItem(DRAFT_KEY) ?? "";
  root.append(el("label", { class: "to", for: "target" }, "To"), view.target, view.text, view.send);
  views.set(root, view);
  fit(view);
  return view;
}

/** Rewrite the choices by key; the chosen one stays, even when its peer or channel is gone. */
function refreshTargets(view, model) {
  const chosen = view.target.value || "all";
  const peers = model.peers.map((peer) => peer.name);
  const channels = Object.keys(model.channels);
  if (chosen !== "all" && !peers.includes(chosen) && !channels.includes(chosen)) (chosen.startsWith("#") ? channels : peers).push(chosen);
  const names = JSON.stringify([peers, channels]);
  if (names !== view.names) {
    view.names = names;
    const option = (value) => el("option", { value }, value === "all" ? "everyone" : value);
    keyed(view.everyone, ["all"], (name) => name, option);
    keyed(view.peersGroup, peers, (name) => name, option);
    keyed(view.channelsGroup, channels, (name) => name, option);
    view.target.value = chosen;
  }
}

function onKey(event, view, send) {
  if (event.isComposing) return; // Enter ends an input method's word
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    say(view, send);
  } else if (event.key === "ArrowUp" && !view.text.value && view.sent.length) {
    event.preventDefault();
    write(view, view.sent.at(-1));
  }
}

function say(view, send) {
  const text = view.text.value;
  if (!text.trim() || view.send.disabled || !send({ say: text, to: view.target.value })) return;
  view.sent.push(text);
  write(view, "");
  view.text.focus();
}

/** A refused message goes back into an empty composer. */
function giveBack(view, model) {
  const refused = model.notices.some((notice) => notice.n > view.noticeCount && notice.command === "say");
  view.noticeCount = model.noticeCount;
  if (refused && !view.text.value && view.sent.length) write(view, view.sent.pop());
}

function write(view, text) {
  view.text.value = text;
  fit(view);
  keepDraft(view);
}

function keepDraft(view) {
  sessionStorage.setItem(DRAFT_KEY, view.text.value);
}

// The composer keeps its height while its text is measured: were it to shrink for an instant, the browser would scroll
// the flow above, and following would end.
function fit(view) {
  view.root.style.height = `${view.root.offsetHeight}px`;
  view.text.style.height = "auto";
  view.text.style.height = `${Math.min(view.text.scrollHeight + 2, HEIGHT_MAX_PX)}px`;
  view.root.style.height = "";
}
