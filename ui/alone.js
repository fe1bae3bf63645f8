// Alone: the bars over the flow that say what is shown alone and what is muted, with the ways back.

import { button, el, icon, keyed, setText } from "./dom.js";
import * as flow from "./flow.js";
import { mayMute, wordsOfOnly } from "./only.js";
import { pref } from "./prefs.js";

const views = new WeakMap();

export function render(root, model, send, now, seat) {
  const view = views.get(root) ?? open(root);
  view.seat = seat;
  const { alone, thread } = flow.filterOf();
  view.bar.hidden = !alone || Boolean(thread);
  if (!view.bar.hidden) drawBar(view, alone);
  const muted = flow.mutedOf();
  view.mutes.hidden = muted.length === 0;
  keyed(view.list, muted, ([mute]) => mute, ([mute]) => chip(view, mute), (node, [mute, count]) => {
    setText(node.querySelector(".mute-count"), count ? ` (${count.toLocaleString()})` : "");
  });
}

function open(root) {
  const view = { seat: null, alone: "", text: el("span", { class: "only-text" }), list: el("ul", { class: "mute-list" }) };
  view.mute = button("Mute", "deaf", { class: "quiet", title: "Leave its messages out of the flow. They are counted, and what needs you still does.", onclick: () => view.seat.go("mute", view.alone) });
  view.bar = el("div", { id: "only-bar", role: "group", "aria-label": "One thing is shown", hidden: true },
    icon("eye"), view.text, view.mute,
    button("Pin beside", "both", { class: "quiet", onclick: () => view.seat.go("pin", view.alone) }),
    button("Whole conversation (Esc)", "back", { class: "quiet", onclick: () => flow.leaveOnly() }));
  view.mutes = el("div", { id: "mutes", role: "group", "aria-label": "Muted", hidden: true }, el("span", { class: "mutes-word" }, "Muted"), view.list);
  root.append(view.bar, view.mutes);
  views.set(root, view);
  return view;
}

function drawBar(view, alone) {
  view.alone = alone;
  const { passed, all } = flow.countsOf();
  setText(view.text, `Only ${wordsOfOnly(alone)}: ${passed.toLocaleString()} of ${all.toLocaleString()}`);
  view.mute.hidden = !mayMute(alone);
  setText(view.mute.lastElementChild, pref("mutes").includes?.(alone) ? "Unmute" : "Mute");
}

const chip = (view, mute) => el("li", {}, el("button", { type: "button", class: "quiet mute-chip", title: `Hear ${wordsOfOnly(mute)} again`, onclick: () => view.seat.go("mute", mute) },
  el("span", { class: "unseen" }, "Hear again: "), el("bdi", {}, wordsOfOnly(mute)), el("span", { class: "mute-count" }), icon("close")));
