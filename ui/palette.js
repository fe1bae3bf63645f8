// Palette: one field (Ctrl K) that reaches every need, peer, channel, command, setting and key. What it lists is made anew
// each time it opens, by those who know; `entriesOf` and `matches` are pure.

import { COMMANDS, commandOf } from "./commands.js";
import { rulesOf } from "./cast.js";
import { el, icon, markOption, setText } from "./dom.js";

const SHOWN_MAX = 60; // more nobody reads: another letter is quicker

const by = (id) => document.getElementById(id);
let view = null;

/** Open it, or close it. `entries()` gives [{kind, icon, text, hint, run}]; called when it opens. */
export function toggle(entries) {
  view ??= build();
  if (view.dialog.open) return view.dialog.close();
  if (document.querySelector("dialog[open]")) return undefined; // a question is being asked
  view.entries = entries();
  view.field.value = "";
  view.dialog.showModal();
  view.field.focus();
  return draw();
}

function build() {
  const dialog = by("palette");
  const made = { dialog, entries: [], found: [], at: 0,
    field: el("input", { id: "palette-field", type: "text", role: "combobox", autocomplete: "off", spellcheck: "false", placeholder: "A name, a command, a setting", "aria-label": "Go to, or do",
      "aria-autocomplete": "list", "aria-expanded": "true", "aria-controls": "palette-list", oninput: () => draw(), onkeydown: onKey }),
    list: el("ul", { id: "palette-list", class: "palette-list", role: "listbox", "aria-label": "What there is", tabindex: "-1" }),
    count: el("p", { class: "facts palette-count", role: "status" }) };
  dialog.append(made.field, made.list, made.count);
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); }); // beside it
  return made;
}

function draw() {
  const found = matches(view.entries, view.field.value);
  view.found = found.slice(0, SHOWN_MAX);
  view.at = 0;
  view.list.replaceChildren(...view.found.map((entry, index) => el("li", { id: `palette-${index}`, class: "offer", role: "option", data: { kind: entry.kind },
    onclick: () => take(index) }, icon(entry.icon), el("bdi", { class: "offer-name" }, entry.text), el("span", { class: "facts" }, entry.hint))));
  setText(view.count, found.length ? (found.length > SHOWN_MAX ? `${SHOWN_MAX} of ${found.length} shown: go on typing` : `${found.length} found`) : "Nothing here has these words.");
  markOption(view.field, view.list, view.at);
}

function onKey(event) {
  if (event.isComposing || event.keyCode === 229) return;
  const count = view.found.length;
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && count) {
    event.preventDefault();
    view.at = (view.at + step + count) % count;
    markOption(view.field, view.list, view.at);
  } else if (event.key === "Enter") {
    event.preventDefault();
    if (!event.repeat && count) take(view.at);
  }
}

function take(index) {
  view.dialog.close(); // the focus is back where it was, and what was chosen moves it from there before another key comes
  view.found[index].run();
}

// ---- what is in it ----------------------------------------------------------------------------------------------

/** Those that have all the words, the ones first that begin with what was typed, then those with a word that does. */
export function matches(entries, typed) {
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return entries;
  const line = words.join(" ");
  const graded = entries.map((entry) => [entry, gradeOf(entry, words, line)]).filter(([, grade]) => grade > 0);
  return graded.sort(([one, a], [other, b]) => b - a || isOurs(other) - isOurs(one)).map(([entry]) => entry);
}

/** What the console can do comes before what somebody may have named like it. */
const isOurs = ({ kind }) => kind === "command" || kind === "setting" || kind === "key";

function gradeOf({ text, hint }, words, line) {
  const own = text.toLowerCase();
  if (!words.every((word) => own.includes(word) || hint.toLowerCase().includes(word))) return 0;
  if (own.startsWith(line) || own.replace(/^[@#/]/, "").startsWith(line)) return 3;
  return ` ${own.replace(/[^\p{L}\p{N}]+/gu, " ")}`.includes(` ${words[0]}`) ? 2 : 1;
}

/** What the room has, for who sits at this page. `ways`: {go, act, write(text), find(line), press(binding), set(name)}. */
export function entriesOf({ model, needs, keys, settings, isOperator }, ways) {
  const { go, act, find } = ways;
  const peers = model.peers.map((peer) => peer.name);
  const channels = Object.keys(model.channels);
  return [
    ...needs.map((need) => ({ kind: "need", icon: "bell", text: [need.who, need.verb, need.text].filter(Boolean).join(" "), hint: `needs you: ${isOperator ? need.help.word : "Show"}`,
      run: () => (need.help.frame ? act(need.help.frame) : go(...need.help.go)) })).filter((_, at) => isOperator || needs[at].help.go),
    ...peers.flatMap((name) => [
      { kind: "peer", icon: "peers", text: name, hint: "show the peer", run: () => go("roster", name) },
      ...(isOperator ? [{ kind: "to", icon: "send", text: `@${name}`, hint: "write to it", run: () => go("write", name) }] : []),
      { kind: "find", icon: "search", text: `with:${quoted(name)}`, hint: "what it said and was told", run: () => find(`with:${quoted(name)}`) },
    ]),
    ...channels.flatMap((name) => [
      { kind: "find", icon: "hash", text: name, hint: "what was said there", run: () => find(`in:${quoted(name)}`) },
      ...(isOperator ? [{ kind: "to", icon: "send", text: name, hint: "write to it", run: () => go("write", name) }] : []),
    ]),
    ...(isOperator ? [{ kind: "to", icon: "all", text: "everyone", hint: "write to everyone", run: () => go("write", "all") }, ...commands(model, ways)] : []),
    ...(isOperator ? model.stage.agents.flatMap((row) => rulesOf(model, row).filter(({ why, frame }) => !why && frame.stage)
      .map(({ word, frame }) => ({ kind: "command", icon: "bolt", text: `${word} ${row.name}`, hint: "on the stage", run: () => act(frame) }))) : []),
    ...model.stage.agents.map(({ name }) => ({ kind: "staged", icon: "peers", text: `Stage: ${name}`, hint: "how it runs", run: () => go("stage", name) })),
    ...settings.map(([name, text, hint]) => ({ kind: "setting", icon: "settings", text, hint: `setting. ${hint}`, run: () => ways.set(name) })),
    ...keys.map((binding) => ({ kind: "key", icon: "bolt", text: binding[1], hint: binding[0], run: () => ways.press(binding) })),
  ];
}

const quoted = (name) => (/[\s"]/.test(name) ? `"${name.replaceAll('"', "")}"` : name);

/** Each command, and each with what it can be given; one that wants more goes into the composer. */
function commands(model, { act, go, write }) {
  return Object.entries(COMMANDS).flatMap(([name, { text, list }]) => ["", ...(list && name !== "to" ? list(model) : [])].map((given) => {
    const line = `/${name}${given && ` ${given}`}`;
    const command = commandOf(line, model);
    return { kind: "command", icon: "bolt", text: line, hint: text, run: () => {
      if (command.frame) act(command.frame);
      else if (command.go) go(command.go);
      else write(`${line} `);
    } };
  }));
}
