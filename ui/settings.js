// Settings: what the operator prefers, as switches in a dialog; what calls him has a button that tries it.

import { mayNotify, notify } from "./calls.js";
import { button, el, setText } from "./dom.js";
import { onPref, pref, setPref } from "./prefs.js";
import { SOUNDS, play } from "./sounds.js";

export const SWITCHES = [
  ["notify", "Browser notifications", "When something needs you and this tab is hidden. The browser asks once."],
  ["mark", "A number in the tab's title", "How many things need you."],
  ["sound", "A sound", "When something new needs you."],
  ["pauseWhileTyping", "Pause the room while you type", "Agents wait while the composer holds an unsent message, and go on when it is sent or cleared."],
  ["enterSends", "Enter sends", "Else Ctrl Enter sends, and Enter makes a new line."],
  ["keys", "Single-letter keys", "The keyboard map. Off, only Tab, Enter and Esc act."],
  ["density", "Density", "Compact has smaller letters and less air: more is in sight at once."],
  ["utc", "Times in UTC", "Instead of this computer's time zone."],
];
const CHOICES = {
  sound: { words: Object.fromEntries(Object.entries(SOUNDS).map(([name, [word]]) => [name, word])), tell: play },
  density: { words: { comfortable: "Comfortable", compact: "Compact" }, tell: () => {} },
};
const NOT_ALLOWED = "The browser does not allow this page to notify you; it can be changed in the browser's settings of this site.";

/** Build the switches into `root`; called once. `showMark` shows for a moment how the title looks. */
export function render(root, showMark) {
  const tests = {
    notify: async (note) => ((await mayNotify()) ? notify({ id: "test", text: "This is how it looks." }) : setText(note, NOT_ALLOWED)),
    mark: showMark,
    sound: () => play(pref("sound") || "tone"),
  };
  root.replaceChildren(...SWITCHES.map((one) => row(one, tests)));
}

function row([name, word, meaning], tests) {
  const note = el("span", { class: "facts", id: `pref-${name}-note` }, meaning);
  const about = { id: `pref-${name}`, "aria-describedby": note.id };
  const field = Object.hasOwn(CHOICES, name) ? choice(name, about) : box(name, about, note);
  const test = tests[name] && button("Try it", null, { class: "quiet", id: `try-${name}`, "aria-describedby": `of-${name}`, onclick: () => tests[name](note) });
  return el("div", { class: "switch" }, field, el("div", {}, el("label", { id: `of-${name}`, for: about.id }, word), note), test);
}

function box(name, about, note) {
  const node = el("input", { type: "checkbox", role: "switch", ...about, onchange: () => change(name, node, note) });
  node.checked = pref(name);
  onPref((changed, value) => { if (changed === name) node.checked = value; });
  return node;
}

function choice(name, about) {
  const { words, tell } = CHOICES[name];
  const options = Object.entries(words).map(([value, word]) => el("option", { value }, word));
  const node = el("select", { ...about, onchange: () => { setPref(name, node.value); tell(node.value); } }, options);
  node.value = Object.hasOwn(words, pref(name)) ? pref(name) : Object.keys(words)[0];
  onPref((changed, value) => { if (changed === name) node.value = value; });
  return node;
}

async function change(name, node, note) {
  if (name === "notify" && node.checked && !(await mayNotify())) {
    node.checked = false;
    setText(note, NOT_ALLOWED);
  }
  setPref(name, node.checked);
}
