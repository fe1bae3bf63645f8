// What the operator prefers, kept in this browser. A preference never goes to the hub.

import { keepIn, keptIn } from "./kept.js";

const KEY = "caucus.prefs";
const DEFAULTS = {
  theme: "auto", // auto | light | dark
  density: "comfortable", // comfortable | compact
  view: "both", // transcript | both | picture
  utc: false, // times in UTC instead of local time
  notify: false, // browser notifications of what needs the operator
  mark: true, // its number in the page's title, which costs nothing
  isCallOffered: false, // whether the operator was asked if he wants to be called
  sound: "", // the name of one of SOUNDS; empty: none
  pauseWhileTyping: false, // the room pauses while the composer holds an unsent text
  enterSends: true, // else Ctrl+Enter sends
  mutes: [], // lanes and peers whose words are left out of the flow
  keys: true, // single letters act; who speaks to the computer may want none of that
};

const listeners = [];
const kept = Object.entries(keptIn(globalThis.localStorage, KEY, {})).filter(([name, value]) => typeof value === typeof DEFAULTS[name]);
const prefs = { ...DEFAULTS, ...Object.fromEntries(kept) };

export const pref = (name) => prefs[name];

export function setPref(name, value) {
  prefs[name] = value;
  keepIn(globalThis.localStorage, KEY, prefs);
  for (const tell of listeners) tell(name, value);
}

/** Call `tell(name, value)` at each change. */
export const onPref = (tell) => void listeners.push(tell);

/** A time of day, in the zone that the operator prefers. */
export function clockOf(ms, second = undefined) {
  return new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second, hourCycle: "h23", timeZone: pref("utc") ? "UTC" : undefined });
}
