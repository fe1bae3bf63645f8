// Calls: how the operator is called to what is new while he is elsewhere, by a browser notification or a sound; and the
// one offer of that. Whoever said no is never asked again.

import { button, el } from "./dom.js";
import { wordsOf } from "./needs.js";
import { pref, setPref } from "./prefs.js";
import { play } from "./sounds.js";

let called = null; // ids that were called out; null before the first look, which calls nobody

/** Call the operator to what is new; `prefs` says how. Gives the new ones. */
export function call(needs, prefs) {
  const fresh = called === null ? [] : needs.filter((need) => !need.isQuiet && !called.has(need.id));
  called = new Set(needs.map((need) => need.id));
  if (fresh.length === 0) return fresh;
  play(prefs.sound);
  if (prefs.notify && document.hidden && globalThis.Notification?.permission === "granted") for (const need of fresh.slice(0, 3)) notify(need);
  return fresh;
}

/** Show a browser notification of a need. */
export function notify(need) {
  const note = new Notification("Caucus needs you", { body: wordsOf(need).slice(0, 200), tag: need.id, icon: "/assets/icon.svg" });
  note.onclick = () => { window.focus(); note.close(); };
}

/** Ask the browser, which asks once, whether this page may notify. */
export const mayNotify = async () => "Notification" in globalThis && (await Notification.requestPermission()) === "granted";

const OFFERED_SOUND = "tone"; // the shortest

/** One quiet line, when the first need comes: nothing waits for it, and after either button it is gone for good. */
export function offer() {
  const answer = (run) => () => {
    setPref("isCallOffered", true);
    run();
  };
  const yes = async () => {
    setPref("sound", OFFERED_SOUND);
    if (await mayNotify()) setPref("notify", true);
    play(OFFERED_SOUND);
  };
  return el("p", { class: "call-offer", hidden: true },
    button("Call me when away", "bell", { class: "quiet", title: "When this tab is out of sight and something needs you: a notification of this browser, and a tone. Both are in the settings.", onclick: answer(yes) }),
    button("No", null, { class: "quiet", title: "Never ask again; the settings have it", onclick: answer(() => {}) }));
}

export const isOffered = (needs) => !pref("isCallOffered") && !pref("notify") && !pref("sound") && needs.some((need) => !need.isQuiet);
