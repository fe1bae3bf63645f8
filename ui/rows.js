// Rows: what of the conversation is shown, and in what order: messages, and between them days, silences and folds. Pure.
//
//   emptyRows(filter, utc, look)     nothing is shown yet; look: {opened, collapsed, having, mutes, here}
//   advance(rows, model)             take what was said since; {from, dropped}: rows before `from` are as they were,
//                                    `dropped` rows at the front are forgotten, with the log
//   pastRows(rows, past, model)      the rows of what was loaded from the record; they stand before all others
//
// A row: {type: message | marker | day | gap | fold | here | head | hole, key, index, ...}; `index` is a place in the whole
// conversation, and ascends. Of the past it is below 0.

import { audienceOf, entryAt, logEnd, threadOf } from "./model.js";
import { isOnly, muteOf } from "./only.js";
import { lowest } from "./picture.js";
import { isAsking, isFound, queryOf } from "./query.js";
import { isUnfetched } from "./receipts.js";

const TOGETHER_S = 60; // a sender who goes on within this keeps one heading
const GAP_S = 600; // a silence worth a line
const BURST_S = 20; // the hub lets a peer say a line each half second: whoever goes on within this talks in one breath
const BURST_MIN = 8; // so many in one breath are folded ...
const BURST_HEAD = 3; // ... but for the first, and the last

/** `needle`: a line of query.js, in lower case; `fate`: "" | unfetched | unanswered; `thread`: a thread, shown alone; `alone`: what else is, as only.js has it. */
export const emptyFilter = () => ({ who: "", scope: "", kind: "", fate: "", thread: "", alone: "", needle: "", only: false });

/** Whether some of the conversation is hidden. */
export const isNarrow = (filter) => Boolean(filter.who || filter.scope || filter.kind || filter.fate || filter.thread || filter.alone || (filter.only && isAsking(queryOf(filter.needle))));

/** Ids of the messages that have this fate now; null: no matter which. */
export function havingFate(model, fate) {
  if (fate === "unfetched") return new Set([...model.receipts.values()].filter(isUnfetched).map((receipt) => receipt.id));
  return fate === "unanswered" ? new Set(model.owed.map(({ seq }) => model._ids.get(seq))) : null;
}

export function emptyRows(filter = emptyFilter(), utc = false, { opened = new Set(), collapsed = new Set(), having = null, mutes = new Set(), here = Infinity } = {}) {
  return {
    filter, utc,
    opened, // first indexes of the bursts that are not to be folded
    collapsed, // threads of which only the first message is shown
    having, // ids of the messages that have the filter's fate
    mutes, muted: new Map(), // what is left out, and how many messages each has left out
    here, isHereShown: false, // the place up to which the reader was here, and whether that has its row
    items: [],
    past: 0, // so many of them are of the past
    pastPassed: 0, pastHits: [],
    upTo: null, // the place in the conversation up to which it was read
    passed: 0, // messages that the filter let through
    hits: [], // places of the messages that the needle is in
    last: null, // the last one that passed, and the breath that it belongs to
    breath: { start: -1, count: 0 },
  };
}

export function advance(rows, model) {
  const end = logEnd(model);
  const start = Math.max(rows.upTo ?? 0, model.logStart);
  const dropped = forget(rows, model.logStart);
  let from = rows.items.length;
  for (let index = start; index < end; index += 1) from = Math.min(from, take(rows, model, entryAt(model, index), index));
  rows.upTo = end;
  return { from, dropped };
}

function forget(rows, logStart) {
  const kept = rows.items.findIndex((item, place) => place >= rows.past && item.index >= logStart);
  const dropped = (kept < 0 ? rows.items.length : kept) - rows.past;
  if (dropped > 0) rows.items.splice(rows.past, dropped);
  if (rows.hits.length && rows.hits[0] < logStart) rows.hits = rows.hits.filter((index) => index >= logStart);
  return dropped;
}

/** The rows of the past. Each page has its own, whatever is loaded beside it, so that none that is on the page changes. */
export function pastRows(rows, past, model) {
  const items = [];
  Object.assign(rows, { pastPassed: 0, pastHits: [] });
  let day = null;
  for (const page of past.pages) {
    if (page.rowsFor !== rows) Object.assign(page, { rowsFor: rows, rows: rowsOfPage(rows, page, past, model) });
    const { items: own, hits, passed } = page.rows;
    const isSameDay = own[0]?.type === "day" && day === dayOf(own[0].ts, rows.utc);
    for (let place = isSameDay ? 1 : 0; place < own.length; place += 1) items.push(own[place]);
    rows.pastHits.push(...hits);
    rows.pastPassed += passed;
    if (own.length) day = dayOf(page.rows.last.ts, rows.utc);
  }
  return items;
}

function rowsOfPage(rows, page, past, model) {
  const own = emptyRows(rows.filter, rows.utc, rows);
  for (const message of page.messages) take(own, model, message, past.placeOf(message));
  return own;
}

/** Add the rows of one message; give the first place in `items` that changed. */
function take(rows, model, message, index) {
  const { items, last } = rows;
  const end = items.length;
  if (message.kind === "marker") {
    if (!isNarrow(rows.filter)) items.push({ type: "marker", key: `k${index}`, index, message });
    rows.last = null;
    return end;
  }
  const isHit = isMeant(message, rows.filter.needle);
  if (!passes(message, rows, isHit) || isLeftOut(message, rows, isHit) || isHiddenByThread(message, rows, model, isHit)) return end;
  rows.passed += 1;
  if (isHit) rows.hits.push(index);
  const isNewDay = !last || dayOf(last.ts, rows.utc) !== dayOf(message.ts, rows.utc);
  const silence = last ? message.ts - last.ts : 0;
  const isBack = !rows.isHereShown && index >= rows.here;
  if (isNewDay) items.push({ type: "day", key: `d${index}`, index, ts: message.ts });
  else if (silence >= GAP_S) items.push({ type: "gap", key: `g${index}`, index, seconds: silence });
  if (isBack) items.push({ type: "here", key: "here", index });
  rows.isHereShown ||= isBack;
  const goesOn = !isNewDay && !isBack && silence < TOGETHER_S && isSameTurn(last, message);
  rows.breath = !isNewDay && !isBack && silence < BURST_S && isSameBreath(last, message, goesOn) ? { start: rows.breath.start, count: rows.breath.count + 1 } : { start: index, count: 1 };
  rows.last = message;
  const row = { type: "message", key: `m${index}`, index, message, goesOn };
  const { start, count } = rows.breath;
  if (count < BURST_MIN || rows.filter.needle || rows.opened.has(start)) {
    items.push(row);
    return end;
  }
  return fold(items, row, start, count);
}

/** Put `row` at the end of a breath, and what lies between it and the breath's beginning into one row. */
function fold(items, row, start, count) {
  if (count === BURST_MIN) {
    const hidden = items.splice(items.length - (BURST_MIN - 1 - BURST_HEAD)).map((item) => item.index);
    items.push({ type: "fold", key: `f${start}`, index: hidden[0], start, hidden, sender: row.message.origin === "hub" ? null : row.message.sender }, row);
    return items.length - 2;
  }
  const [folded, shown] = items.splice(items.length - 2);
  items.push({ ...folded, hidden: [...folded.hidden, shown.index] }, row);
  return items.length - 2;
}

function isSameTurn(a, b) {
  return !b.reply_to && a.sender === b.sender && a.recipient === b.recipient && a.kind === b.kind && a.origin === b.origin && b.origin === "agent"; // the operator's words each stand for themselves
}

/** Lines of one agent, or notices of the hub: a full mailbox tells of each message that it loses. */
const isSameBreath = (a, b, goesOn) => (goesOn ? b.origin === "agent" : a.origin === "hub" && b.origin === "hub" && a.seq === 0 && b.seq === 0);

/** Whether a message is what is looked for; nothing is, while nothing is asked. */
export function isMeant(message, needle) {
  if (needle === "") return false;
  const query = queryOf(needle);
  return isAsking(query) && isFound(message, query);
}

function passes(message, { filter, having }, isHit) {
  if (having && !having.has(message.id)) return false;
  if (filter.only && !isHit && isAsking(queryOf(filter.needle))) return false;
  if (filter.kind && kindOf(message) !== filter.kind) return false;
  if (!filter.thread && !isOnly(message, filter.alone)) return false;
  if (filter.scope && !isInScope(message, filter.scope)) return false;
  return !filter.who || isOf(message, filter.who);
}

/** What is muted is left out and counted; what is looked for, or at alone, is shown. */
function isLeftOut(message, { filter, mutes, muted }, isHit) {
  if (isHit || filter.alone || filter.thread) return false;
  const mute = muteOf(message, mutes);
  if (mute !== null) muted.set(mute, (muted.get(mute) ?? 0) + 1);
  return mute !== null;
}

/** A folded thread still shows what is looked for. */
function isHiddenByThread({ id }, { filter, collapsed }, model, isHit) {
  const thread = threadOf(model, id);
  if (filter.thread) return thread !== filter.thread;
  if (isHit || isNarrow(filter)) return false;
  return collapsed.has(thread) && model.threads.get(thread)?.[0] !== id;
}

/** What a message is, for the filter: message, answer, control, or system for the hub's own lines. */
export const kindOf = (message) => (message.origin === "hub" ? "system" : message.kind);

function isInScope(message, scope) {
  const audience = audienceOf(message);
  return scope === "broadcast" || scope === "direct" ? audience === scope : message.recipient === scope;
}

/** `who`: "operator", "hub", or "=" and a peer's name; a peer's are also the words to it. */
const isOf = (message, who) => (who.startsWith("=") ? isOnly(message, who) : message.origin === who);

const DAY_MS = 86_400_000;

function dayOf(ts, utc) {
  const ms = ts * 1000;
  return Math.floor((ms - (utc ? 0 : new Date(ms).getTimezoneOffset() * 60_000)) / DAY_MS);
}

/** The row that shows the message at `index`, or holds it folded; -1 if none does. */
export function rowOf(rows, index) {
  const place = lowest(rows.items, (item) => item.index > index) - 1;
  const found = rows.items[place];
  if (!found) return -1;
  return found.index === index || (found.type === "fold" && found.hidden.includes(index)) ? place : -1;
}
