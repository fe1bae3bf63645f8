// Flow: the conversation, as a list of which only the rows near the window are on the page. While somebody reads, nothing
// moves: the row at the top keeps its place, whatever is said below and whatever is measured above.

import { namesPlace, partOf, withPart } from "./address.js";
import { announce, button, copyAndTell, copyText, el, icon, setText, toast } from "./dom.js";
import { draftOf, keepDraft } from "./drafts.js";
import { Heights } from "./heights.js";
import { drawRow, guessOf, isLong, refreshAsks, treeOf } from "./message.js";
import { entryAt as logEntryAt, forgetBefore, indexOf as logIndexOf, isOperator, laneOf, lineOf, logEnd, saidAs, threadOf } from "./model.js";
import { Past, edgeOf } from "./older.js";
import { ONLY, isMuted, mutesOf, routeOf, wordsOfOnly } from "./only.js";
import { onPref, pref } from "./prefs.js";
import { advance, emptyFilter, emptyRows, havingFate, isMeant, isNarrow, pastRows, rowOf } from "./rows.js";
import { queryOf, wordsOf } from "./query.js";
import { fetchHistory } from "./socket.js";
import { openFates, refreshFates, refreshTick, showFates } from "./ticks.js";
import { markdownOf } from "./transcript.js";

const OVERSCAN_PX = 600; // above and below the window, so that a turn of the wheel meets rows that are there
const END_PX = 8; // closer to the end than this is "at the end"
const PASSES = 4; // of drawing and measuring: heights are guessed until a row is on the page
const TAIL_PX = 16; // of air below the last row
const KNOWN_MAX = 40_000; // measured heights that are kept
const FLASH_MS = 2_200;
const NEAR_PX = 2_400; // as near as this to what is not loaded, it is fetched
const FAR_PX = 20_000; // who follows the newest that far below the past reads it no more
const PAGE_THEN = 3; // messages: the one that is looked for is in the middle
const NOWHERE = -1; // no place of the log, nor of the past
const PERMALINK = "m-"; // parts of the address
const SEQ_LINK = "seq=";
const THREAD_LINK = "t-";
const PLACE = "place"; // where the reader was, over a reload

let view = null; // of the one flow that there is; null until it is drawn first

export function render(root, model, send, now, seat) {
  view ??= open(root);
  const isTurned = view.model !== null && view.model !== model;
  const home = isTurned ? turnTo(view) : null;
  view.model = view.fates.model = model;
  view.seat = view.fates.seat = seat ?? view.seat;
  followFate(view);
  sync(view);
  if (home) comeHome(view, home);
  if (view.isDirty) layout(view);
  if (view.wanted > 0) showWanted(view);
  if (isWhole(model)) for (const tell of view.onWhole.splice(0)) tell();
  const end = logEnd(model);
  setText(view.counter, end ? `${end.toLocaleString()} ${end === 1 ? "entry" : "entries"}` : "");
  drawBelow(view);
  refreshTicks(view);
  refreshFates(view.fates, now ?? Date.now());
  drawThreadBar(view);
  const isEmpty = view.rows.items.every(isEdge);
  view.empty.hidden = !isEmpty;
  if (isEmpty) setText(view.empty, end ? "Nothing of what was said passes the filter." : "Nobody has spoken yet. What agents say appears here as they say it.");
  reach(view);
  if (view.isLinkRead || !model.link.isTold || (end === 0 && model.isOpening)) return;
  view.isLinkRead = true; // showing it draws again
  view.isLinkRead = readPermalink(!model.isOpening); // the log comes in pages
}

const redraw = () => render(view.scroller, view.model);

// ---- what others ask of the flow --------------------------------------------------------------------------------

/** Show the newest message and follow from there. */
export function follow() {
  if (!view) return;
  leaveOpening(view); // what was to be opened is not wanted any more
  tell(view, "");
  Object.assign(view, { following: true, isDirty: true, current: NOWHERE });
  redraw();
}

export const isFollowing = () => view?.following ?? true;

/** Bring a message into the middle of the window and let it flash; false when this page does not have it. */
export function reveal(id) {
  const index = view ? indexOf(view, id) : NOWHERE;
  return index !== NOWHERE && revealAt(view, index);
}

function revealAt(view, index) {
  sync(view);
  const entry = entryAt(view, index);
  if (!entry) return false;
  if (isLong(entry) && isMeant(entry, view.filter.needle)) view.unfolded.add(entry.id); // what was found is in it
  let place = rowOf(view.rows, index);
  if (place < 0) {
    view.collapsed.delete(threadOf(view.model, entry.id)); // what hides it gives way
    rebuild(view);
    place = rowOf(view.rows, index);
  }
  if (place < 0) {
    setFilter({ ...emptyFilter(), needle: view.filter.needle });
    place = rowOf(view.rows, index);
  }
  if (place < 0 && isMuted(entry, view.mutes)) { // its lane alone, for the mute stays
    showOnly(routeOf(entry));
    place = rowOf(view.rows, index);
  }
  const item = view.rows.items[place];
  if (item?.type === "fold") {
    view.opened.add(item.start);
    rebuild(view);
    place = rowOf(view.rows, index);
  }
  if (place < 0) return false;
  view.following = false;
  view.anchor = { place, offset: Math.min(0, view.heights.list[place] - view.scroller.clientHeight) / 2 };
  view.current = index;
  layout(view);
  layout(view); // the guesses above it are measured now
  const node = view.nodes.get(view.rows.items[place].key)?.node;
  showMark(view, node);
  node?.classList.add("revealed");
  setTimeout(() => node?.classList.remove("revealed"), FLASH_MS);
  drawBelow(view);
  return true;
}

/** Have what was found in a row in the window, when the row is higher. */
function showMark(view, row) {
  const mark = row?.querySelector(".content mark")?.getBoundingClientRect();
  const { top, bottom } = view.scroller.getBoundingClientRect();
  if (!mark || (mark.top >= top && mark.bottom <= bottom)) return;
  view.anchor = { ...view.anchor, offset: view.anchor.offset + mark.top - (top + bottom) / 2 };
  layout(view);
}

export const filterOf = () => view?.filter ?? emptyFilter();

/** Show only what passes `filter`; the needle in it is marked. */
export function setFilter(filter) {
  if (!view) return;
  if (view.filter.thread && !filter.thread) setAddress(THREAD_LINK, null); // an entry that led back in would be a trap
  if (view.filter.alone !== filter.alone) setAddress(ONLY, filter.alone ? encodeURIComponent(filter.alone) : null);
  view.filter = filter;
  view.having = havingFate(view.model, filter.fate);
  view.scroller.toggleAttribute("data-thread", Boolean(filter.thread));
  rebuild(view);
  redraw();
}

/** Where the reader is in the conversation, and how it is filtered: there `goBack` leads. */
const placeNow = (view) => ({ following: view.following, index: view.rows.items[view.anchor.place]?.index ?? NOWHERE, filter: view.filter });

/** Show the thread of a message alone; it has an address, and the browser's own way back leads out of it. */
export function showThread(id, isLinked = false) {
  if (!view || logIndexOf(view.model, id) < 0) return false;
  const thread = threadOf(view.model, id);
  const isInside = Boolean(view.filter.thread);
  if (!isInside) view.before = placeNow(view);
  if (!isLinked) setAddress(THREAD_LINK, view.model.threads.get(thread)?.[0] ?? id, !isInside);
  setFilter({ ...emptyFilter(), needle: view.filter.needle, alone: view.filter.alone, thread });
  revealAt(view, indexOf(view, id));
  announce(`One thread, of ${countsOf().passed} messages. Escape leads back.`);
  return true;
}

/** Back to the whole conversation, to where the reader was, as it was filtered; false if no thread was shown alone. */
export function leaveThread() {
  if (!view?.filter.thread) return false;
  return goBack(view.before, { thread: "" });
}

/** Show what was shown before one thing was shown alone, where the reader was. */
function goBack(before, none) {
  const { following, index, filter } = before ?? { following: true, index: NOWHERE, filter: emptyFilter() };
  setFilter({ ...filter, needle: view.filter.needle, ...none });
  const place = rowOf(view.rows, index);
  if (following || place < 0) follow();
  else {
    Object.assign(view, { following: false, anchor: { place, offset: 0 }, isDirty: true });
    redraw();
  }
  view.scroller.focus({ preventScroll: true });
  announce("The whole conversation.");
  return true;
}

/** Change one part of the page's address; `isNew`: the browser's way back leads out of it. */
function setAddress(prefix, value, isNew = false) {
  const hash = withPart(location.hash, prefix, value);
  if (hash !== location.hash) history[isNew ? "pushState" : "replaceState"](null, "", location.pathname + location.search + hash);
}

/** Show a peer, a route or the operator alone; it has an address, and the browser's own way back leads out of it. */
export function showOnly(only, isLinked = false) {
  if (!view?.model || !only || (isLinked && view.filter.alone === only)) return;
  leaveThread();
  if (view.filter.alone === only) return;
  if (!view.filter.alone) view.beforeOnly = placeNow(view);
  if (!isLinked) setAddress(ONLY, encodeURIComponent(only), !view.filter.alone);
  setFilter({ ...emptyFilter(), needle: view.filter.needle, alone: only });
  announce(`Only ${wordsOfOnly(only)}: ${countsOf().passed} messages. Escape leads back.`);
}

/** Back to the whole conversation, as from a thread; false if nothing was shown alone. */
export function leaveOnly() {
  if (!view?.filter.alone || view.filter.thread) return false;
  return goBack(view.beforeOnly, { alone: "" });
}

/** Words of this console are said: whoever does not see them is led to them. */
export function noteOwn(id) {
  if (view) view.own = id;
}

/** What is left out by which mute: [mute, how many messages]. */
export const mutedOf = () => [...(view?.mutes ?? [])].map((mute) => [mute, view.rows.muted.get(mute) ?? 0]);

/** Draw a mark before entry `index` of the conversation: up to there somebody was here, until `at`, ms. */
export function markHere(index, at) {
  if (!view?.model || (view.here === index && view.hereAt === at)) return;
  Object.assign(view, { here: index, hereAt: at });
  rebuild(view);
  redraw();
}

/** Mark what a lane's loop is shown by, seqs `from` to `to`, and go to the first of it; without a lane mark nothing. */
export function showEvidence(evidence) {
  if (!view?.model) return;
  view.evidence = evidence;
  if (evidence) {
    if (isNarrow(view.filter) || view.filter.thread) setFilter({ ...emptyFilter(), needle: view.filter.needle });
    for (const item of view.rows.items) if (item.type === "fold" && item.hidden.some((index) => isEvidence(view, entryAt(view, index)))) view.opened.add(item.start);
    rebuild(view);
  }
  view.isDirty = true;
  drawEvidenceBar(view);
  redraw();
  if (!evidence) return view.scroller.focus({ preventScroll: true });
  const first = view.model.log.find((message) => isEvidence(view, message));
  announce(`Marked: what shows a loop in ${evidence.lane}.`);
  if (first && (first.seq === evidence.from || !isPresent())) return arrive(view, logIndexOf(view.model, first.id));
  void openSeq(evidence.from);
}

/** Forget the marks; false if there were none. */
export function leaveEvidence() {
  if (!view?.evidence) return false;
  showEvidence(null);
  return true;
}

const isEvidence = ({ evidence }, message) => Boolean(evidence && message && message.seq >= evidence.from && message.seq <= evidence.to && laneOf(message) === evidence.lane);

function drawEvidenceBar({ evidence, marks }) {
  marks.hidden = evidence === null;
  if (evidence) setText(marks.text, `Marked: what shows a loop in ${evidence.lane}`);
}

const evidenceBar = (view) => barOf("evidence-bar", "Evidence is marked", "loop",
  button("No marks (Esc)", "close", { class: "quiet", onclick: () => showEvidence(null) }));

/** A bar above the flow; what it says is written into its `text`. */
function barOf(id, label, iconName, ...buttons) {
  const text = el("span", { class: `${id}-text` });
  const bar = el("div", { id, role: "group", "aria-label": label, hidden: true }, icon(iconName), text, buttons);
  document.getElementById("flow-tools").append(bar);
  return Object.assign(bar, { text });
}

/** How many entries pass the filter, of how many; and where the needle was found. */
export function countsOf() {
  if (!view) return { passed: 0, all: 0, hits: 0, hit: 0, isNarrow: false };
  const { passed, pastPassed, items } = view.rows;
  const hits = hitsOf(view);
  return { passed: passed + pastPassed, all: logEnd(view.model) + (isPresent() ? view.past.count : 0), hasGap: items.some(isGap), hits: hits.length, hit: hits.indexOf(view.hit) + 1, isNarrow: isNarrow(view.filter) };
}

const hitsOf = ({ rows }) => (rows.pastHits.length ? [...rows.pastHits, ...rows.hits] : rows.hits);

/** Go to the next (1) or previous (-1) place where the needle was found; from the end, the newest first. */
export function goToHit(step) {
  const hits = view ? hitsOf(view) : [];
  if (!hits.length) return false;
  const known = hits.indexOf(view.hit);
  const next = known < 0 ? (step > 0 ? 0 : hits.length - 1) : (known + step + hits.length) % hits.length;
  view.hit = hits[next];
  return revealAt(view, view.hit);
}

/** The messages that pass the filter, folded ones too; and a marker where messages are missing. */
export function shownOf() {
  if (!view) return [];
  const markerOf = (content) => ({ kind: "marker", content });
  const missing = markerOf(`Messages after ${view.past.last} and before ${edgeOf(view.model)} are missing here: they were not loaded.`);
  const shown = view.rows.items.flatMap((item) => {
    if (isGap(item)) return [item.message ?? missing];
    return (item.type === "fold" ? item.hidden : item.type === "message" ? [item.index] : []).map((index) => entryAt(view, index));
  });
  return [...leftOutOf(view).map(markerOf), ...shown];
}

/** What is not shown, in words: what is older and was not loaded, and what does not pass. */
function leftOutOf({ past, model, filter, rows, mutes }) {
  const edge = edgeOf(model);
  const first = past.first ?? edge;
  const isOlder = first > 1 && first < Infinity && !past.hasAllBefore(edge);
  return [
    isOlder && `Messages before ${first.toLocaleString()} are missing here: they were not loaded.`,
    (isNarrow(filter) || rows.muted.size > 0) && `Only what passes the ${[isNarrow(filter) && "filter", mutes.size > 0 && "mutes"].filter(Boolean).join(" and the ")} is here.`,
  ].filter(Boolean);
}

const isGap = ({ type, message }) => type === "hole" || message?.isHole === true;

/** The first and the last place of the page's log that is in the window; null while there is none. */
export function windowOf() {
  if (!view || view.rows.items.length === view.rows.past || view.scroller.clientHeight === 0) return null;
  const top = view.lastTop;
  const { items } = view.rows;
  return [top, top + view.height - 1].map((y) => Math.max(view.model.logStart, items[view.heights.at(y)].index)); // the past is not in the picture
}

// ---- the view ---------------------------------------------------------------------------------------------------

function open(root) {
  const view = {
    scroller: root, model: null,
    list: el("ol", { class: "rows" }),
    empty: el("p", { class: "empty" }),
    below: document.getElementById("new-below"), belowText: el("span"),
    counter: document.getElementById("flow-count"),
    filter: emptyFilter(), opened: new Set(), // of bursts
    collapsed: new Set(), // threads whose answers are folded away
    having: null, havingOf: null, // ids that have the filter's fate, and what of the model they were read from
    before: null, beforeOnly: null, // where one was before a thread, or something else, was shown alone
    mutes: mutesOf(pref("mutes")), here: Infinity, hereAt: 0,
    own: null, // the id of the newest words of this console that the reader has not had in the window
    onWhole: [], // who waits until all pages of the log are here
    fates: openFates(root), seat: null,
    evidence: null, // {lane, from, to}: seqs of what is marked
    rows: null, heights: new Heights(), known: new Map(), // key -> measured height
    nodes: new Map(), // key -> {node, stamp}, those on the page
    unfolded: new Set(), sources: new Set(), // message ids: shown whole, shown as they were written
    following: true, anchor: { place: 0, offset: 0 }, // reading: this row is at the top of the window, so far above its edge
    end: 0, // of the conversation, when it was looked at last
    readTo: 0, // the reader has had the end on the page up to here
    receipts: null, owed: null, loops: null, lastTop: 0, height: 0, isDirty: true, isMounting: false, isLinkRead: false, current: NOWHERE, hit: NOWHERE,
    isUpward: true, // so the reader moved last
    past: null, drawn: "", // what of the past is among the rows
    room: null, isTold: false, // of which the past is; whether the line to it is open
    opening: 0, openingSeq: 0, // counts what was to be opened from the record, and which message that is; 0: none
    wanted: 0, // the message that is to be shown as soon as the moment is, in the past
    home: null, // where the reader was in the present, while the past is shown
    note: el("div", { id: "record-note", role: "status", hidden: true }),
  };
  view.rows = emptyRows(view.filter, pref("utc"), lookOf(view));
  view.past = new Past((query) => fetchHistory(query, view.model.link.auth), () => showPast(view));
  root.parentNode.append(view.note);
  root.append(view.empty, view.list);
  view.below.append(icon("down"), view.belowText);
  view.below.addEventListener("click", () => {
    if (!ownOf(view)) follow();
    else if (reveal(view.own) && view.lastTop >= view.heights.total + TAIL_PX - view.height - END_PX) follow();
    root.focus({ preventScroll: true });
  });
  root.addEventListener("scroll", () => onScroll(view), { passive: true });
  root.addEventListener("wheel", (event) => { if (event.deltaY < 0) leaveEnd(view); }, { passive: true });
  root.addEventListener("keydown", (event) => { if (event.target === root && ["PageUp", "ArrowUp", "Home"].includes(event.key)) leaveEnd(view); });
  root.addEventListener("click", (event) => onClick(view, event));
  root.addEventListener("focusin", (event) => onFocus(view, event));
  root.addEventListener("pointerover", (event) => carryTools(view, event.target.closest?.(".message")));
  new ResizeObserver(() => { keepStill(view); layout(view); }).observe(root); // the composer grew, the window was resized
  onPref((name) => {
    if (!["utc", "mutes", "density"].includes(name) || !view.model) return;
    if (name === "mutes") view.mutes = mutesOf(pref("mutes"));
    if (name === "density") view.known.clear();
    rebuild(view);
    redraw();
  });
  addEventListener("hashchange", () => {
    if (partOf(location.hash, THREAD_LINK) === null) leaveThread();
    if (partOf(location.hash, ONLY) === null) leaveOnly();
    view.isLinkRead = Boolean(view.model) && readPermalink(view.model.link.isTold === true && !view.model.isOpening); // its message may be on a page that is still to come
  });
  view.bar = threadBar(view);
  view.marks = evidenceBar(view);
  addEventListener("pagehide", () => leavePlace(view));
  document.addEventListener("selectionchange", () => {
    const selection = getSelection();
    if (!selection.isCollapsed && root.contains(selection.anchorNode)) leaveEnd(view); // what is being marked must not run away
  });
  view.tools = toolsOf(view);
  return view;
}

/** Another model: the past, or another moment of it, or the present again. Nothing that was drawn holds. Give where the reader was in the present, if that is back. */
function turnTo(view) {
  if (!isPresent() && !view.home) {
    const { following, openingSeq, opened, collapsed, unfolded, sources } = view;
    view.home = { following, held: view.heights.size ? heldBy(view) : null, seq: openingSeq, folds: { opened, collapsed, unfolded, sources } };
    Object.assign(view, { opening: view.opening + 1, openingSeq: 0 });
    tell(view, "");
  }
  const home = isPresent() ? view.home : null;
  view.tools.remove();
  for (const { node } of view.nodes.values()) node.remove();
  Object.assign(view, {
    heights: new Heights(), known: new Map(), nodes: new Map(), opened: new Set(), collapsed: new Set(), unfolded: new Set(), sources: new Set(), ...home?.folds,
    before: null, beforeOnly: null, own: null, having: null, havingOf: null, following: true, anchor: { place: 0, offset: 0 },
    end: 0, readTo: 0, receipts: null, owed: null, loops: null, evidence: null, current: NOWHERE, hit: NOWHERE, isDirty: true, drawn: "",
  });
  view.rows = emptyRows(view.filter, pref("utc"), lookOf(view));
  drawEvidenceBar(view);
  return home;
}

/** Back in the present: to where the reader was; what was being opened is opened now. */
function comeHome(view, { following, held, seq }) {
  view.home = null;
  if (!following && held) {
    view.following = false;
    holdOn(view, held);
  }
  if (seq) void openSeq(seq);
}

/** Take what was said since, and make room for it. */
function sync(view) {
  const { rows, heights } = view;
  const { from, dropped } = advance(rows, view.model);
  if (dropped) {
    heights.splice(rows.past, dropped);
    const { place } = view.anchor;
    if (place >= rows.past) view.anchor = place < rows.past + dropped ? { place: rows.past, offset: 0 } : { ...view.anchor, place: place - dropped };
  }
  if (view.end !== logEnd(view.model)) view.isDirty = true; // an answer that is folded away counts on the first of its thread
  view.end = logEnd(view.model);
  if (dropped || from !== heights.size || from !== rows.items.length) {
    heights.truncate(from);
    for (let place = heights.size; place < rows.items.length; place += 1) heights.push(heightOf(view, rows.items[place]));
    view.isDirty = true;
  }
  syncPast(view);
}

/** A moment of the past knows nothing of who is here now. */
const lookOf = (view) => ({ opened: view.opened, collapsed: view.collapsed, having: view.having, mutes: view.mutes, here: isPresent() ? view.here : Infinity });

const heightOf = (view, item) => view.known.get(item.key) ?? guessOf(item);

/** Choose the rows anew, and keep the reader where the reader is. */
function rebuild(view) {
  const held = heldBy(view);
  view.rows = emptyRows(view.filter, pref("utc"), lookOf(view));
  view.heights = new Heights();
  view.drawn = "";
  sync(view);
  holdOn(view, held);
}

/** What the reader has at the top of the window: a message, for days and edges come and go. */
function heldBy({ rows, heights, anchor }) {
  const top = heights.top(Math.min(anchor.place, heights.size)) + anchor.offset;
  let place = Math.min(anchor.place, rows.items.length - 1);
  while (place < rows.items.length - 1 && !isSaid(rows.items[place])) place += 1;
  return { index: rows.items[place]?.index ?? 0, offset: top - heights.top(Math.max(0, place)) };
}

const isSaid = ({ type }) => type === "message" || type === "fold" || type === "marker";
const isEdge = ({ type }) => type === "head" || type === "hole";

/** Keep it there, wherever its row is now. */
function holdOn(view, { index, offset }) {
  const { items } = view.rows;
  const same = rowOf(view.rows, index);
  const next = same < 0 ? items.findIndex((item) => item.index >= index) : same;
  view.anchor = { place: next < 0 ? Math.max(0, items.length - 1) : next, offset: same < 0 ? 0 : offset };
  view.isDirty = true;
}

/** The page goes: remember what the reader has at the top of the window, unless that is the newest anyhow. */
function leavePlace(view) {
  if (!view.model?.room || !isPresent() || isFile()) return;
  const held = heldBy(view);
  const entry = entryAt(view, held.index);
  keepDraft(PLACE, view.following || !entry ? null : { room: view.model.room, id: entry.id, seq: entry.seq, offset: held.offset });
}

/** After a reload, once all is filtered as it was: to where the reader was, unless the address names a place. */
export function placeAgain() {
  const kept = draftOf(PLACE);
  if (!kept || namesPlace(location.hash) || kept.room !== view.model.room || !isPresent()) return;
  const index = indexOf(view, kept.id);
  if (index === NOWHERE) return void (kept.seq > 0 && openSeq(kept.seq));
  view.following = false;
  holdOn(view, { index, offset: Number(kept.offset) || 0 });
  layout(view);
  layout(view); // the guesses above it are measured now
}

// ---- the past ---------------------------------------------------------------------------------------------------

const indexOf = (view, id) => view.model._indexes.get(id) ?? (isPresent() ? view.past.places.get(id) : undefined) ?? NOWHERE;
const entryAt = (view, index) => (index >= 0 ? logEntryAt(view.model, index) : isPresent() ? view.past.entryAt(index) : undefined);

/** Whether the room is shown as it is: what was said before a moment of replay, or in a file, is all that there is. */
const isPresent = () => document.body.dataset.past !== "shown";
const isFile = () => document.body.hasAttribute("data-record");

/** Put what is loaded of the past before all other rows, if it is not what stands there. */
function syncPast(view) {
  const { model, past, rows, heights } = view;
  if (isPresent() && view.room !== model.room) { // its seqs tell of other messages now
    view.room = model.room;
    past.begin();
  }
  const isTold = model.link.isTold === true;
  if (isTold && !view.isTold) past.recover(); // what failed without the hub is tried again with it
  view.isTold = isTold;
  const edge = edgeOf(model);
  const drawn = [past.version, edge, model.link.state, isNarrow(rows.filter), rows.filter.thread, isPresent()].join();
  if (view.drawn === drawn) return;
  view.drawn = drawn;
  const head = isPresent() ? headOf(view, edge) : headThen(view, edge);
  const hole = past.pages.length > 0 && !past.isJoined(edge) ? holeOf(past) : null;
  const items = (isPresent() ? [head, ...pastRows(rows, past, model), hole] : [head]).filter(Boolean);
  const held = heights.size ? heldBy(view) : null;
  heights.splice(0, rows.past, items.map((item) => heightOf(view, item)));
  rows.items.splice(0, rows.past, ...items);
  rows.past = items.length;
  if (held) holdOn(view, held);
  view.isDirty = true;
}

const WHEN = { dateStyle: "medium", timeStyle: "short" };
const whenOf = (ts) => new Date(ts * 1000).toLocaleString([], { ...WHEN, timeZone: pref("utc") ? "UTC" : undefined });

/** The row above all others: how far back one can go. */
function headOf({ past, filter }, edge) {
  if (filter.thread || (past.pages.length === 0 && !(edge > 1 && edge < Infinity))) return null;
  const head = { type: "head", key: "head", index: -Infinity, act: null, word: "", state: past.top.state };
  const back = past.reaches?.ts ? ` They reach back to ${whenOf(past.reaches.ts)}.` : "";
  if (head.state === "loading") return { ...head, text: "Reading older messages…" };
  if (head.state === "failed") return { ...head, text: `Older messages could not be read: ${past.top.why}.`, act: "older", word: "Try again" };
  const than = past.pages.length ? ` than ${whenOf(past.pages[0].messages[0].ts)}` : "";
  if (!past.hasAllBefore(edge)) return { ...head, text: `There are older messages${than}.${back}`, act: "older", word: "Show older" };
  return { ...head, state: "first", text: firstWords(past.reaches) };
}

/** In the past: what was said before is in another span. */
function headThen({ filter }, edge) {
  if (filter.thread || !(edge > 1 && edge < Infinity)) return null;
  const head = { type: "head", key: "head", index: -Infinity, act: null, word: "", state: "first" };
  return isFile() ? { ...head, text: "The record begins here." } : { ...head, text: "More was said before.", act: "earlier", word: "Go back to it" };
}

function firstWords({ kept, seq, ts }) {
  const since = ts ? `, of ${whenOf(ts)}` : "";
  if (kept !== "journal") return `The oldest message that the hub still has${since}: without a journal it keeps the last thousand in memory.`;
  return seq > 1 ? `The first message that the record has${since}: what was said before is not kept in the journal any more.` : `The first message of this room${since}.`;
}

const HOLE = { type: "hole", key: "hole", index: -2 };

function holeOf({ end }) {
  if (end.state === "failed") return { ...HOLE, state: "failed", text: `What follows could not be read: ${end.why}.`, act: "newer", word: "Try again" };
  return { ...HOLE, state: end.state, text: end.state === "loading" ? "Reading on…" : "More was said here.", act: end.state === "loading" ? null : "newer", word: "Show it" };
}

function showPast(view) {
  if (!view.model) return;
  sync(view);
  layout(view);
  drawBelow(view);
  reach(view);
}

/** Fetch what the window comes near to, and forget what it is far from. */
function reach(view) {
  const { past, model, rows, heights, filter, lastTop, height } = view;
  if (!isPresent() || height === 0 || !model.link.isTold || model.isOpening || filter.thread) return;
  const edge = edgeOf(model);
  if (past.pages.length && view.following && lastTop - heights.top(rows.past) > FAR_PX) {
    past.clear();
    return showPast(view);
  }
  if (isNarrow(filter) || model.link.state !== "open") return; // what is filtered out would be fetched to the very first; there is a button
  const head = rows.items[0];
  const isShown = lastTop < heights.list[0];
  if (head?.type === "head" && head.state === "idle" && head.act && lastTop < NEAR_PX && (view.isUpward || isShown)) void past.older(edge);
  const hole = rows.items[rows.past - 1];
  if (hole?.type !== "hole" || hole.state !== "idle") return;
  const y = heights.top(rows.past - 1);
  const margin = view.isUpward ? 0 : NEAR_PX; // what follows is not fetched for one who goes back
  if (y > lastTop - NEAR_PX && y < lastTop + height + margin) void past.newer(edge);
}

function onEdge(view, act) {
  if (act === "earlier") return view.seat.go("moment", view.model.log.find(({ seq }) => seq > 0).ts * 1000 - 1);
  if (act === "older") void view.past.older(edgeOf(view.model));
  else void view.past.newer(edgeOf(view.model));
  view.scroller.focus({ preventScroll: true });
  return undefined;
}

/** A calm line over the conversation; `again`: what its button does. */
function tell(view, text, again = null) {
  view.note.hidden = !text;
  view.note.replaceChildren(...(text ? [el("span", {}, text), again && button("Try again", null, { class: "quiet", onclick: again }), again && button("Dismiss", "close", { onclick: () => tell(view, "") }, true)].filter(Boolean) : []));
}

/** Where the page's own log begins: what is older is in the record. Infinity: there is nothing older, or nobody to ask. */
export function loadedFrom() {
  return view?.model && !isFile() ? edgeOf(view.model) : Infinity;
}

/** Ask the record; as the past does. */
export const askRecord = (query) => view.past.ask(query);

/** Show message `seq`, from the record if it is not on the page; true once it is shown. */
export async function openSeq(seq) {
  if (!view?.model) return false;
  const { model, past } = view;
  const run = leaveOpening(view);
  tell(view, "");
  if (isPresent() && model.isOpening && !saidAs(model, seq)) { // it may be on a page of the log that is still to come
    tell(view, `Opening message ${seq.toLocaleString()}…`);
    await new Promise((resolve) => { view.onWhole.push(resolve); });
    if (run !== view.opening) return false;
    tell(view, "");
    sync(view);
  }
  sync(view); // this may be another room
  const live = saidAs(model, seq);
  const place = live ? logIndexOf(model, live.id) : past.placeOf({ seq });
  if (live || (isPresent() && past.bySeq.has(seq))) return arrive(view, place);
  if (!isPresent()) return openThen(view, seq, run);
  const edge = edgeOf(model);
  const hole = edge === 0 || seq > edge ? holeWith(model, seq) : null;
  if (seq > model.lastSeq) return refuse(`Message ${seq.toLocaleString()} has not been said: the newest is ${model.lastSeq.toLocaleString()}.`);
  if (!hole && (edge === 0 || seq > edge)) return refuse(`Message ${seq.toLocaleString()} is missing on this page. Load the page again, and it is found.`);
  view.openingSeq = seq;
  tell(view, `Opening message ${seq.toLocaleString()}…`);
  const isFound = await opened(view, run, past.open(seq, hole?.edge ?? edge), `Message ${seq.toLocaleString()}`, () => openSeq(seq));
  if (isFound === undefined) return false;
  view.openingSeq = 0;
  if (isFound && hole) forgetBefore(model, hole.end); // the record has it all, so that there is one way through it
  if (isFound) return arrive(view, place);
  return isFound === null ? false : refuse(beyondWords(past.reaches, seq));
}

/** Wait for what the record says; undefined: something else is being opened, or it failed, which is told with a way to try `again`. */
async function opened(view, run, reply, what, again) {
  try {
    const found = await reply;
    if (run !== view.opening) return undefined;
    tell(view, "");
    return found;
  } catch (failure) {
    if (run === view.opening) tell(view, `${what} could not be opened: ${failure.message}.`, again);
    return undefined;
  }
}

const isWhole = (model) => model.link.isTold === true && !model.isOpening;

/** What is being opened is not wanted any more; give the number of what is opened now. */
function leaveOpening(view) {
  Object.assign(view, { openingSeq: 0, wanted: 0 });
  return (view.opening += 1);
}

function refuse(text) {
  toast(text, "refused");
  return false;
}

const beyondWords = (reaches, seq) => (reaches?.seq ? `The record does not have message ${seq.toLocaleString()}: it reaches back to message ${reaches.seq.toLocaleString()}, of ${whenOf(reaches.ts)}.` : "The record has no messages.");

/** The hole in the page's log that message `seq` is in: where it ends, and the first seq after it; null when it is in none. */
function holeWith(model, seq) {
  const isOurs = (message) => message.seq > 0 && model._ids.get(message.seq) === message.id;
  const next = model.log.findIndex((message) => isOurs(message) && message.seq > seq);
  const upTo = next < 0 ? model.log.length : next;
  const marker = model.log.findLastIndex((message, at) => at < upTo && message.isHole);
  if (marker < 0 || !model.log.slice(0, marker).some(isOurs)) return null;
  return { end: model.logStart + marker + 1, edge: next < 0 ? model.lastSeq + 1 : model.log[next].seq };
}

/** Read what is missing at a marker of the log. */
function openHole(view, id) {
  const { log, logStart } = view.model;
  const before = log.slice(0, logIndexOf(view.model, id) - logStart).findLast(({ seq }) => seq > 0);
  void openSeq((before?.seq ?? 0) + 1);
}

/** In the past a message is shown in the moment in which it was said. */
async function openThen(view, seq, run) {
  let ms = view.seat.momentOfSeq(seq);
  if (ms === null && !isFile()) {
    tell(view, `Looking for message ${seq.toLocaleString()}…`);
    const reply = await opened(view, run, view.past.ask({ around: seq, limit: PAGE_THEN }), `Message ${seq.toLocaleString()}`, () => openSeq(seq));
    if (reply === undefined) return false;
    const found = reply.messages.find((message) => message.seq === seq);
    ms = found ? Math.ceil(found.ts * 1000) + 1 : null;
  }
  if (ms === null) return refuse(`The record does not have message ${seq.toLocaleString()}.`);
  view.wanted = seq;
  view.seat.go("moment", ms);
  return true;
}

function showWanted(view) {
  if (!document.body.hasAttribute("data-past")) view.wanted = 0; // it was left
  const found = isPresent() ? undefined : saidAs(view.model, view.wanted);
  if (found) view.wanted = 0;
  if (found) arrive(view, logIndexOf(view.model, found.id));
}

/** Show a row and have the keys there. */
function arrive(view, place) {
  if (!revealAt(view, place)) return false;
  reach(view);
  const row = view.nodes.get(view.rows.items[rowOf(view.rows, place)]?.key)?.node;
  if (!document.querySelector("dialog[open]")) (row ?? view.scroller).focus({ preventScroll: true });
  return true;
}

/** Show the first message that was said at a moment (ms) or later. */
export async function openTime(ms) {
  if (!view?.model) return;
  const { model } = view;
  if (!isPresent()) return view.seat.go("moment", ms);
  const first = model.log.findIndex((message) => message.seq > 0);
  const isHere = first >= 0 && (model.log[first].ts * 1000 <= ms || edgeOf(model) <= 1);
  if (isHere) {
    const found = model.log.findIndex((message, at) => at >= first && message.seq > 0 && message.ts * 1000 >= ms);
    if (found >= 0) return arrive(view, model.logStart + found);
    follow();
    return toast("Nothing was said since then: this is the newest.", "info");
  }
  const run = leaveOpening(view);
  tell(view, `Looking for ${whenOf(ms / 1000)}…`);
  const reply = await opened(view, run, view.past.ask({ at: String(ms / 1000), limit: 1 }), "That time", () => openTime(ms));
  if (reply === undefined) return undefined;
  return reply.messages.length ? openSeq(reply.messages[0].seq) : refuse("The record has nothing of that time or later.");
}

/** With a filter by fate: choose anew when other messages have it. */
function followFate(view) {
  const { receipts, owed } = view.model;
  if (!view.filter.fate || (view.havingOf?.receipts === receipts && view.havingOf?.owed === owed)) return;
  view.havingOf = { receipts, owed };
  const having = havingFate(view.model, view.filter.fate);
  if (view.having && having.size === view.having.size && [...having].every((id) => view.having.has(id))) return;
  view.having = having;
  rebuild(view);
}

/** Ticks change where they stand: a row is not drawn anew for them, and its height stays. */
function refreshTicks(view) {
  const { receipts, owed, loops } = view.model;
  if (view.receipts === receipts && view.owed === owed && view.loops === loops) return;
  Object.assign(view, { receipts, owed, loops });
  for (const { node } of view.nodes.values()) {
    const [tick, asks] = [node.querySelector(":scope > .tick"), node.querySelector(".asks")];
    if (tick) refreshTick(tick, view.model, entryAt(view, indexOf(view, node.dataset.id)));
    if (asks) refreshAsks(asks, view.model, Number(node.dataset.seq));
  }
}

// ---- a thread alone ---------------------------------------------------------------------------------------------

const threadBar = (view) => barOf("thread-bar", "One thread is shown", "thread",
  button("Pin beside", "both", { class: "quiet", onclick: () => view.seat.go("pin", THREAD_LINK + (view.model.threads.get(view.filter.thread)?.[0] ?? view.filter.thread)) }),
  button("Whole conversation (Esc)", "back", { class: "quiet", onclick: () => leaveThread() }));

function drawThreadBar(view) {
  const { thread } = view.filter;
  view.bar.hidden = !thread;
  if (!thread) return;
  const ids = view.model.threads.get(thread) ?? [thread];
  const first = logEntryAt(view.model, logIndexOf(view.model, ids[0]));
  const words = first ? `${first.sender === "human" ? "operator" : first.sender}: ${lineOf(first.content, 120)}` : "";
  const count = `${ids.length} ${ids.length === 1 ? "message" : "messages"}`;
  setText(view.bar.text, first?.reply_to ? `Only a thread whose beginning is not on this page any more: ${count}, the first of them ${words}` : `Only the thread of ${count} that begins with ${words}`);
}

// ---- where one is -----------------------------------------------------------------------------------------------

// A wheel turned up must win over the next frame's pin to the end, so it counts before the scroll happens.
function leaveEnd(view) {
  if (view.scroller.scrollTop <= 0 || !view.following) return;
  view.following = false;
  keepPlace(view);
}

function onScroll(view) {
  const { scroller, lastTop } = view;
  const top = scroller.scrollTop;
  if (Math.abs(top - lastTop) < 1) return; // our own
  const toEnd = scroller.scrollHeight - scroller.clientHeight - top;
  view.lastTop = top;
  view.isUpward = top < lastTop;
  if (top < lastTop && toEnd > END_PX) view.following = false;
  if (top > lastTop && toEnd <= END_PX) view.following = true;
  keepPlace(view);
  layout(view);
  drawBelow(view);
  reach(view);
}

function keepPlace(view) {
  const top = view.scroller.scrollTop;
  const place = view.heights.at(top);
  view.anchor = { place, offset: top - view.heights.top(place) };
}

function drawBelow(view) {
  const { rows, heights } = view;
  if (view.following) view.readTo = logEnd(view.model);
  else if (rows.items.length) view.readTo = Math.max(view.readTo, rows.items[heights.at(view.lastTop + view.height - TAIL_PX - 2)].index + 1); // an edge of a row is not read yet
  let unseen = 0;
  for (let place = rows.items.length - 1; place >= 0 && rows.items[place].index >= view.readTo; place -= 1) {
    const item = rows.items[place];
    unseen += item.type === "fold" ? item.hidden.length : item.type === "message" ? 1 : 0;
  }
  const own = ownOf(view);
  view.below.hidden = (view.following || rows.items.every(isEdge)) && !own;
  if (!view.below.hidden) setText(view.belowText, own === HIDDEN ? own : unseen ? `${unseen.toLocaleString()} new below${own}` : "Back to the latest");
}

const HIDDEN = "What you said is not among what is shown: go to it";

/** Words for where the operator's own last words are, if the reader has not had them in the window. */
function ownOf(view) {
  const { rows, heights } = view;
  const own = view.own === null ? NOWHERE : logIndexOf(view.model, view.own);
  if (own < 0 || !isPresent()) return "";
  const place = rowOf(rows, own);
  if (place < 0) return HIDDEN;
  if (!view.following && heights.top(place) + Math.min(heights.list[place], view.height) - view.lastTop > view.height + END_PX) return ", with what you said";
  view.own = null;
  return "";
}

// ---- drawing and measuring --------------------------------------------------------------------------------------

/** What opens above the flow covers its first rows; it moves none. */
function keepStill(view) {
  const { top, width } = view.scroller.getBoundingClientRect();
  if (width === view.width && view.y !== undefined && !view.following) view.anchor = { ...view.anchor, offset: view.anchor.offset + top - view.y };
  Object.assign(view, { y: top, width, isDirty: true });
}

function layout(view) {
  const { scroller, heights } = view;
  if (!view.model) return;
  view.isDirty = false;
  view.height = scroller.clientHeight;
  let top = 0;
  for (let pass = 0; pass < PASSES; pass += 1) {
    top = topOf(view);
    const from = heights.size ? heights.at(top - OVERSCAN_PX) : 0;
    const to = heights.size ? heights.at(top + view.height + OVERSCAN_PX) + 1 : 0;
    mount(view, from, to);
    if (!measure(view, from, to)) break;
  }
  const shown = scroller.scrollTop;
  if (view.following) {
    if (scroller.scrollHeight - view.height - shown > 1) scroller.scrollTop = scroller.scrollHeight;
  } else if (Math.abs(shown - top) >= 1) scroller.scrollTop = top;
  view.lastTop = scroller.scrollTop;
}

function topOf(view) {
  const { heights, anchor, following, height } = view;
  const most = Math.max(0, heights.total + TAIL_PX - height);
  return following ? most : Math.min(most, Math.max(0, heights.top(Math.min(anchor.place, heights.size)) + anchor.offset));
}

/** Have the rows [from, to) on the page, in order, and air in place of all others. */
function mount(view, from, to) {
  const { list, heights, nodes } = view;
  const wanted = new Map();
  for (const item of view.rows.items.slice(from, to)) wanted.set(item.key, nodeOf(view, item));
  const spot = spotOf(view);
  for (const [key, { node }] of nodes) {
    if (wanted.get(key)?.node === node) continue;
    if (node.contains(view.tools)) view.tools.remove();
    node.remove();
  }
  let cursor = list.firstChild;
  for (const { node } of wanted.values()) {
    if (node === cursor) cursor = cursor.nextSibling;
    else list.insertBefore(node, cursor);
  }
  view.nodes = wanted;
  if (spot && spot.control !== document.activeElement) giveFocus(view, spot);
  const before = heights.top(from);
  list.style.setProperty("padding-top", `${before}px`);
  list.style.setProperty("padding-bottom", `${Math.max(0, heights.total - heights.top(to)) + TAIL_PX}px`);
}

/** Which control of which row has the keys; null: none. */
function spotOf(view) {
  const control = document.activeElement;
  if (!view.list.contains(control)) return null;
  const [key, { node }] = [...view.nodes].find(([, one]) => one.node.contains(control)) ?? [null, {}];
  return key === null ? null : { key, control, at: control === node ? NOWHERE : alike(node, control).indexOf(control) };
}

const alike = (row, control) => [...row.querySelectorAll(control.localName)].filter((one) => one.className === control.className);

/** The row was drawn anew, or is out of sight: give the keys to the same control, or else to the row, or else to the flow, where they still work. */
function giveFocus(view, { key, control, at }) {
  const row = view.nodes.get(key)?.node;
  view.isMounting = true;
  if (row && view.tools.contains(control)) {
    carryTools(view, row);
    row.focus({ preventScroll: true }); // else they are not shown
  }
  const same = row && (view.tools.contains(control) ? control : at === NOWHERE ? row : alike(row, control)[at] ?? row);
  same?.focus({ preventScroll: true });
  if (!row?.contains(document.activeElement)) view.scroller.focus({ preventScroll: true });
  view.isMounting = false;
}

function nodeOf(view, item) {
  const known = view.nodes.get(item.key);
  const id = item.message?.id;
  const stamp = [item.goesOn, item.hidden?.length, view.rows.utc, view.filter.needle, view.unfolded.has(id), view.sources.has(id), threadStamp(view, id), item.type === "here" && view.hereAt, item.text, isEvidence(view, item.message)].join();
  if (known?.stamp === stamp) return known;
  const look = { utc: view.rows.utc, hereAt: view.hereAt, needle: view.filter.needle, words: wordsOf(queryOf(view.filter.needle)), isUnfolded: (message) => view.unfolded.has(message.id), isSource: (message) => view.sources.has(message.id), isEvidence: (message) => isEvidence(view, message), isCollapsed: (thread) => view.collapsed.has(thread) };
  return { node: drawRow(view.model, item, look), stamp };
}

/** What of its thread a message shows: only the first one does. */
function threadStamp({ model, collapsed }, id) {
  const thread = model.roots.get(id);
  return thread !== undefined && model.threads.get(thread)[0] === id ? `${model.threads.get(thread).length} ${collapsed.has(thread)}` : "";
}

/** Measure what is on the page; true if a height was not what it was taken for. */
function measure(view, from, to) {
  const { heights, nodes, known } = view;
  let changed = false;
  for (let place = from; place < to; place += 1) {
    const { key } = view.rows.items[place];
    const height = nodes.get(key).node.getBoundingClientRect().height;
    if (Math.abs(height - heights.list[place]) < 0.5) continue;
    if (known.size > KNOWN_MAX) known.clear();
    known.set(key, height);
    heights.set(place, height);
    changed = true;
  }
  return changed;
}

// ---- one message ------------------------------------------------------------------------------------------------

function toolsOf(view) {
  const act = (deed) => () => deed(view, messageOf(view, view.tools.closest(".message")));
  return el("span", { class: "row-tools" },
    button("Tools of this message", "more", { class: "row-more" }, true), // where a row has no free place for them all: they open from it
    button("Answer this message (r)", "reply", { class: "row-reply", onclick: act(answer) }, true),
    button("Show this thread alone (v)", "thread", { class: "row-thread", onclick: act((_, message) => message && showAlone(view, message)) }, true),
    button("Copy as Markdown (y)", "copy", { onclick: act(copy) }, true),
    button("Copy a link to this message", "link", { onclick: act(copyLink) }, true),
    button("Show as it was written (u)", "source", { class: "row-source", onclick: act(toggleSource) }, true));
}

/** One set of tools serves all rows: it travels to the row that is pointed at or has the focus. */
function carryTools(view, row) {
  if (!row || view.tools.parentNode === row) return;
  row.append(view.tools);
  const tick = row.querySelector(":scope > .tick:not([hidden])");
  const taken = tick && row.getBoundingClientRect().right - tick.getBoundingClientRect().left;
  view.tools.style.setProperty("--taken", tick ? `${taken}px` : "0px"); // beside the tick or below it, never over it
  view.tools.dataset.ticked = String(Boolean(tick));
  view.tools.querySelector(".row-source").hidden = !treeOf(view.model, messageOf(view, row) ?? {});
  view.tools.querySelector(".row-thread").hidden = !view.model.roots.has(row.dataset.id) || Boolean(view.filter.thread);
  view.tools.querySelector(".row-reply").hidden = !isOperator(view.model) || !(Number(row.dataset.seq) > 0);
}

function answer(view, message) {
  if (message?.seq > 0 && isOperator(view.model)) view.seat.go("reply", message);
}

function showAlone(view, message) {
  if (view.model.roots.has(message.id)) showThread(message.id);
  else toast("This message is in no thread: it answers nothing, and nothing answers it.");
}

/** Go to what a message answers. */
function jump(view, seq) {
  const answered = saidAs(view.model, seq);
  if (answered && reveal(answered.id)) view.nodes.get(`m${view.current}`)?.node.focus({ preventScroll: true });
  else void openSeq(seq);
}

/** Fold the answers of a thread away, or show them again. */
function foldThread(view, thread) {
  const head = view.model.threads.get(thread)?.[0];
  if (head === undefined || view.filter.thread) return;
  if (!view.collapsed.delete(thread)) view.collapsed.add(thread);
  keepPlace(view);
  rebuild(view);
  redraw();
  const row = view.nodes.get(`m${indexOf(view, head)}`)?.node;
  (row?.querySelector(".thread-fold") ?? row ?? view.scroller).focus({ preventScroll: true });
}

const messageOf = (view, row) => (row ? entryAt(view, indexOf(view, row.dataset.id)) : undefined);

function copy(view, message) {
  if (message) void copyAndTell(markdownOf(message, pref("utc")), "the message");
}

function copyLink(view, message) {
  if (!message) return;
  const [prefix, name] = message.seq > 0 ? [SEQ_LINK, message.seq] : [PERMALINK, message.id];
  setAddress(prefix === SEQ_LINK ? PERMALINK : SEQ_LINK, null);
  setAddress(prefix, name);
  copyText(`${location.href.split("#")[0]}#${prefix}${name}`).then((done) => toast(done ? "Copied a link to the message. It holds no token." : "The link is in the address bar.", "info"));
}

function toggleSource(view, message) {
  if (message) toggle(view, view.sources, message.id);
}

function toggle(view, set, id) {
  if (!set.delete(id)) set.add(id);
  if (view.following) keepPlaceOf(view, id);
  view.isDirty = true;
  layout(view);
  const row = view.nodes.get(`m${indexOf(view, id)}`)?.node;
  if (!row?.contains(document.activeElement)) row?.focus({ preventScroll: true });
}

/** What was unfolded is being read: from now on its row stays, and the end moves. */
function keepPlaceOf(view, id) {
  const index = indexOf(view, id);
  if (index < logEnd(view.model) - 1 || view.unfolded.has(id)) view.following = false;
  keepPlace(view);
}

function onClick(view, event) {
  const unfold = event.target.closest("[data-unfold]");
  if (unfold) toggle(view, view.unfolded, unfold.dataset.unfold);
  const { jump: seq, foldThread: thread, alone, record, hole } = event.target.closest("[data-jump], [data-fold-thread], [data-alone], [data-record], [data-hole]")?.dataset ?? {};
  if (hole) return openHole(view, hole);
  if (record) return onEdge(view, record);
  if (seq) return jump(view, Number(seq));
  if (thread) return foldThread(view, thread);
  if (alone) return void showThread(alone);
  const burst = event.target.closest("[data-unfold-burst]");
  if (!burst) return;
  keepPlace(view);
  view.following = false;
  view.opened.add(Number(burst.dataset.unfoldBurst));
  rebuild(view);
  redraw();
  view.scroller.focus({ preventScroll: true });
}

function onFocus(view, event) {
  const row = event.target.closest(".message");
  if (!row) return;
  view.current = indexOf(view, row.dataset.id);
  carryTools(view, row);
  if (!view.isMounting && row.dataset.open === "false" && event.target.closest(".content")) toggle(view, view.unfolded, row.dataset.id); // the focus went into what is folded
}

// ---- keys and permalinks ----------------------------------------------------------------------------------------

export const KEYS = [
  ["j", "Next message", () => walk(1)],
  ["k", "Previous message", () => walk(-1)],
  ["o", "Show all of the message, or less", () => withCurrent((view, message) => isLong(message) && toggle(view, view.unfolded, message.id))],
  ["y", "Copy the message as Markdown", () => withCurrent(copy)],
  ["u", "Show the message as it was written", () => withCurrent(toggleSource)],
  ["r", "Answer the message", () => withCurrent(answer)],
  ["p", "Go to what the message answers", () => withCurrent((view, message) => message.reply_to && jump(view, message.reply_to))],
  ["v", "Show the message's thread alone", () => withCurrent(showAlone)],
  ["s", "Show the message's sender alone", () => withCurrent((view, message) => view.seat.go("only", soleOf(message)))],
  ["x", "Show the message's lane alone", () => withCurrent((view, message) => view.seat.go("only", routeOf(message)))],
  ["e", "Fold the thread's answers, or show them", () => withCurrent((view, message) => foldThread(view, threadOf(view.model, message.id)))],
];

const soleOf = ({ origin, sender }) => (origin === "agent" ? `=${sender}` : origin === "operator" ? "operator" : "");

/** Enter on a row tells who has its message; on the flow itself it goes to the newest row. True if it was for the flow. */
export function onEnter(target) {
  if (target === view?.scroller) walk(-1);
  else if (!view || !target.matches?.("#flow .message")) return false;
  else showFates(view.fates, target);
  return true;
}

function withCurrent(deed) {
  const message = view && view.current !== NOWHERE ? entryAt(view, view.current) : undefined;
  if (message) deed(view, message);
}

/** Go to the next or the previous message from the current one, or from the first in the window. */
function walk(step) {
  if (!view?.rows.items.length) return;
  const { items } = view.rows;
  const known = view.current === NOWHERE ? -1 : rowOf(view.rows, view.current);
  let place = known < 0 ? view.heights.at(view.lastTop + (step > 0 ? 0 : view.height - 1)) - step : known;
  do place += step; while (items[place] && items[place].type !== "message");
  if (!items[place]) return;
  view.current = items[place].index;
  if (place < items.length - 1) leaveEnd(view);
  show(view, place);
  const row = view.nodes.get(items[place].key)?.node;
  row?.focus({ preventScroll: true });
  announce(row ? `${row.querySelector(".name")?.textContent ?? ""}: ${items[place].message.content.slice(0, 300)}` : "");
}

/** Scroll as little as it takes to have a row in the window. */
function show(view, place) {
  const [from, to] = [view.heights.top(place), view.heights.top(place + 1)];
  const top = view.lastTop;
  if (from >= top && to <= top + view.height) return;
  view.following = false;
  const offset = from < top ? 0 : Math.min(0, to - from - view.height);
  view.anchor = { place, offset };
  layout(view);
  drawBelow(view);
}

/** Go to what the address links to; false if it may be on a page that is still to come. */
function readPermalink(isLogWhole) {
  const [only, thread, number, id] = [ONLY, THREAD_LINK, SEQ_LINK, PERMALINK].map((prefix) => partOf(location.hash, prefix));
  if (only !== null) showOnly(decoded(only), true);
  if (thread !== null) {
    const isHere = showThread(thread, true);
    if (!isHere && isLogWhole) toast("The linked thread is not among what this hub still keeps.", "refused");
    return isHere || isLogWhole;
  }
  if (number !== null) {
    const seq = /^\d+$/.test(number) ? Number(number) : 0; // not 1e3, nor 0x10
    if (!Number.isSafeInteger(seq) || seq < 1) toast("The link names no message: after #seq= stands a number.", "refused");
    else if (!isLogWhole && !saidAs(view.model, seq) && !view.past.bySeq.has(seq)) return false;
    else void openSeq(seq);
    return true;
  }
  if (id === null) return true;
  const isFound = reveal(id);
  if (!isFound && isLogWhole) toast("The linked message is not among those that this hub still keeps.", "refused");
  return isFound || isLogWhole;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return ""; // of a link that was cut
  }
}
