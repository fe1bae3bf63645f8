// Settings: what the operator prefers, as switches in a dialog.

import { beep } from "./attention.js";
import { el, setText } from "./dom.js";
import { pref, setPref } from "./prefs.js";

const SWITCHES = [
  ["notify", "Browser notifications", "When something needs you and this tab is hidden. The browser asks once."],
  ["badge", "A number in the tab's title", "How many things need you."],
  ["sound", "A short tone", "When something new needs you."],
  ["pauseWhileTyping", "Pause the room while you type", "Agents wait while the composer holds an unsent message, and go on when it is sent or cleared."],
  ["enterSends", "Enter sends", "Else Ctrl Enter sends, and Enter makes a new line."],
  ["keys", "Single-letter keys", "The keyboard map. Off, only Tab, Enter and Esc act."],
  ["utc", "Times in UTC", "Instead of this computer's time zone."],
];

/** Build the switches into `root`; called once. */
export function render(root) {
  root.replaceChildren(...SWITCHES.map(row));
}

function row([name, word, meaning]) {
  const note = el("span", { class: "facts" }, meaning);
  const box = el("input", { type: "checkbox", role: "switch", id: `pref-${name}`, "aria-describedby": `pref-${name}-note`, onchange: () => change(name, box, note) });
  box.checked = pref(name);
  note.id = `pref-${name}-note`;
  return el("div", { class: "switch" }, box, el("div", {}, el("label", { for: box.id }, word), note));
}

async function change(name, box, note) {
  if (name === "notify" && box.checked && !(await mayNotify())) {
    box.checked = false;
    setText(note, "The browser does not allow this page to notify you; it can be changed in the browser's settings of this site.");
  }
  setPref(name, box.checked);
  if (name === "sound" && box.checked) beep();
}

const mayNotify = async () => "Notification" in globalThis && (await Notification.requestPermission()) === "granted";
