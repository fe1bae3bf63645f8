// Beyond: what a search finds in the record, before this page's own log; as a list under the search field, the newest first.

import { button, el, nameTag, setText } from "./dom.js";
import * as flow from "./flow.js";
import { drawText } from "./markdown.js";
import { hueOf, lineOf, lowerOf } from "./model.js";
import { pref } from "./prefs.js";
import { isAsking, isFound, parse, recordOf, siftOf, wordsOf } from "./query.js";

const REST_MS = 450; // the record is asked when the fingers rest a little longer
const HITS = 20; // of one look
const HITS_MAX = 200; // in the list
const SIFTED = 200; // messages of one look, when no word is asked and all are looked through; as many as the hub gives
const ROUNDS_MAX = 40; // a quarter of a second each at most: then somebody must want it
const AROUND = [50, 130]; // characters before and after what was found
const CHARS = 2_000_000; // of a page of hits: none is cut, for what was found may stand at the end of a long message
const LOW = matchMedia("(max-height: 45rem) and (max-width: 50rem), (max-height: 30rem)"); // there the list folds into one line

export function openBeyond() {
  const view = { run: 0, timer: null, needle: "", query: parse(""), model: null, found: [], before: null, from: 0, reaches: null, state: "off", why: "", isFolded: false };
  view.text = el("span", { role: "status" });
  view.more = button("Look further back", null, { class: "quiet", onclick: () => look(view) });
  view.fold = button("", "down", { class: "quiet record-fold", "aria-controls": "record-hits", hidden: true, onclick: () => { view.isFolded = !view.isFolded; draw(view); } });
  view.list = el("ol", { id: "record-hits", class: "record-hits", "aria-label": "Found in older messages", hidden: true });
  view.node = el("div", { class: "record-bar", id: "beyond", hidden: true }, view.text, view.fold, view.more, view.list);
  return view;
}

/** Look for what was typed, soon; nothing for an empty text. */
export function search(view, typed, model) {
  view.model = model;
  if (typed === view.needle) return;
  clearTimeout(view.timer);
  const from = flow.loadedFrom();
  Object.assign(view, { needle: typed, query: parse(typed), run: view.run + 1, found: [], before: from, from, reaches: null, state: "off", why: "", isFolded: LOW.matches });
  view.list.replaceChildren();
  draw(view);
  if (!(from > 1 && from < Infinity)) return;
  const [fault] = view.query.faults;
  if (fault) {
    Object.assign(view, { state: "fault", why: fault });
    draw(view);
  } else if (isAsking(view.query)) view.timer = setTimeout(() => look(view), REST_MS);
}

async function look(view) {
  const run = (view.run += 1);
  const wanted = view.found.length + HITS;
  Object.assign(view, { state: "looking", why: "" });
  draw(view);
  try {
    for (let round = 0; round < ROUNDS_MAX && view.before !== null && view.found.length < wanted; round += 1) {
      const wantedThen = recordOf(view.query, (name) => spelt(view.model, name));
      const reply = await flow.askRecord({ ...wantedThen, before: view.before, limit: wantedThen.q ? HITS : SIFTED, max_chars: CHARS });
      if (run !== view.run) return;
      view.reaches = reply.reaches;
      view.before = reply.next?.before ?? null;
      const sift = siftOf(view.query);
      add(view, reply.messages.filter((message) => isFound(message, sift)).reverse());
      draw(view);
    }
    view.state = "done";
  } catch (failure) {
    if (run !== view.run) return;
    Object.assign(view, { state: "failed", why: failure.message });
  }
  draw(view);
}

/** A name as the room writes it. */
const spelt = (model, name) => [...model.hues.keys(), ...Object.keys(model.channels)].find((one) => lowerOf(one) === name) ?? name;

function add(view, messages) {
  view.found.push(...messages);
  view.list.append(...messages.map((message) => el("li", {}, hitOf(view, message))));
}

function hitOf(view, message) {
  const zone = pref("utc") ? "UTC" : undefined;
  const when = new Date(message.ts * 1000);
  const name = message.origin === "agent" ? nameTag(message.sender, hueOf(view.model, message.sender)) : el("span", { class: "name" }, message.origin === "hub" ? "hub" : "operator");
  return el("button", { type: "button", class: "record-hit", onclick: () => open(view, message.seq) },
    el("time", { datetime: when.toISOString() }, when.toLocaleString([], { dateStyle: "short", timeStyle: "short", timeZone: zone })),
    name, el("bdi", {}, `to ${message.recipient}`), el("span", { class: "words", dir: "auto" }, ...drawText(...partOf(message.content, wordsOf(view.query).flatMap((word) => word.split(" "))))));
}

/** Show one; where both have no room the list makes room for it. */
function open(view, seq) {
  view.isFolded = LOW.matches;
  draw(view);
  void flow.openSeq(seq);
}

/** The words around the first one that was looked for, and that one. */
function partOf(content, words) {
  const lower = lowerOf(content);
  const word = words.find((one) => lower.includes(one)) ?? "";
  const at = Math.max(0, lower.indexOf(word));
  const [from, to] = [Math.max(0, at - AROUND[0]), at + AROUND[1]];
  const part = lineOf(content.slice(from, to), AROUND[0] + AROUND[1] + 1);
  return [`${from ? "…" : ""}${part}${to < content.length ? "…" : ""}`, words];
}

/** The record is searched by words alone, while the page finds senders too. */
const many = (count) => `the words of ${count.toLocaleString()} older ${count === 1 ? "message" : "messages"}`;

function draw(view) {
  view.node.hidden = view.state === "off";
  setText(view.text, textOf(view));
  view.list.hidden = view.found.length === 0 || view.isFolded;
  view.fold.hidden = view.found.length === 0;
  setText(view.fold.lastElementChild, view.isFolded ? "Show them" : "Fold them");
  view.fold.setAttribute("aria-expanded", String(!view.isFolded));
  const isOneLine = view.isFolded && view.found.length > 0;
  view.more.hidden = isOneLine || view.state === "looking" || view.state === "fault" || (view.state === "done" && (view.before === null || view.found.length >= HITS_MAX));
  setText(view.more.lastElementChild, view.state === "failed" ? "Try again" : "Look further back");
}

function textOf({ state, why, found, before, from, reaches }) {
  if (state === "fault") return `Older messages were not searched: ${why}.`;
  if (state === "failed") return `Older messages could not be searched: ${why}.`;
  const first = reaches?.seq ?? from;
  const all = Math.max(0, from - first);
  const looked = Math.max(0, from - Math.max(first, before ?? first));
  const count = found.length ? `${found.length.toLocaleString()} found` : state === "looking" ? "Looking" : "Nothing found";
  if (reaches === null) return "Looking through older messages…";
  const full = found.length >= HITS_MAX && before !== null ? " More are not listed: add a word." : "";
  return `${count} in ${many(all)}${looked < all ? `, of which ${looked.toLocaleString()} were looked through` : ""}${state === "looking" ? "…" : "."}${full}`;
}
