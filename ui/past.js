// The past that is being looked at: which span of it is here, which moment is shown, and how time goes on in it.
//
//   live > loading > shown > live       none: there is no past to show, and `why` says so
//
// No DOM: what it needs of the page comes as functions, time as an argument.

import { addPart, emptyReplay, goTo, nextMoment, placeOf, readOn } from "./replay.js";

export const SPEEDS = [1, 10, 60];
const SPAN_MS = 86_400_000; // that is asked for at once: a day
const LAST_MS = 9e13; // the hub knows no later time
const PARTS_BEFORE = 12; // of a span, before the moment that is wanted, some 13,000 entries: where more was said, the span is shorter
const ENTRIES_MAX = 400_000; // of one span: beyond, the rest of it is not asked for
const SLICE_MS = 8; // of reading, between two frames of the screen
const SLICE = 100; // entries
const WATCHED_MAX_MS = 60_000; // a silence that would take longer to watch is skipped
const LEAD_MS = 1_000; // before what ends it, in the room's time

/** `fetchPart({from, to, after}, signal)` gives a part of the past; `changed()` is called when there is something new to draw. */
export function openPast({ fetchPart, changed }) {
  return {
    state: "live", why: "", replay: null,
    ms: 0, // the moment that is shown
    wanted: 0, // the moment that somebody went to; Infinity: the end
    speed: 1, isPlaying: false, tickedAt: 0,
    asked: Infinity, // the moment that the span was asked for
    isCut: false, // what is still to come of the span could not be read
    skipped: null, // {ms, at}: how much of silence was skipped, and when
    load: 0, // +1 with each span: what comes late for another one is not wanted
    leave: new AbortController(), // of the span: what is under way for it is not waited for, nor made, once it is left
    isFile: false,
    fetchPart, changed,
  };
}

/** The model of the moment that is shown; null: it is the present. */
export const modelThen = (past) => (past.state === "shown" ? past.replay.shown : null);

export const isLooking = (past) => past.state !== "live";

/** Look at the span around a moment, ms, or without one at the latest. */
export async function lookAt(past, ms = Infinity) {
  const moment = Number.isFinite(ms) ? Math.min(LAST_MS, Math.max(0, ms)) : Infinity;
  const ask = Number.isFinite(ms) ? { from: Math.max(0, moment - SPAN_MS / 2) / 1000, to: Math.min(LAST_MS, moment + SPAN_MS / 2) / 1000 } : {};
  past.asked = moment;
  await fetchParts(past, beginSpan(past, moment), ask);
}

function beginSpan(past, moment) {
  const load = leaveSpan(past);
  Object.assign(past, { state: "loading", why: "", replay: emptyReplay(), wanted: moment, isPlaying: false, skipped: null });
  past.changed();
  return load;
}

/** What could not be read is asked for again: all of the span, or what was still to come of it. */
export function lookAgain(past) {
  if (past.state === "none") return lookAt(past, past.asked);
  if (!past.isCut) return undefined;
  Object.assign(past, { isCut: false, why: "" });
  readAll(past, past.load);
  return fetchParts(past, past.load, {});
}

async function fetchParts(past, load, ask) {
  try {
    for (let parts = 1; past.load === load && past.replay.next !== null; parts += 1) {
      const { asked, next } = past.replay;
      const isFirst = past.replay.entries.length === 0;
      const part = await past.fetchPart(isFirst ? ask : { ...asked, after: next }, past.leave.signal);
      if (past.load !== load) return undefined;
      const better = isFirst ? endOfRecord(past, part) : null;
      if (better) {
        ask = better;
        continue;
      }
      addPart(past.replay, part);
      const nearer = parts === PARTS_BEFORE ? nearerSpan(past) : null;
      if (nearer) return await fetchParts(past, beginSpan(past, past.wanted), nearer);
      if (past.replay.entries.length > ENTRIES_MAX) cutShort(past);
      if (isFirst) readAll(past, load);
    }
  } catch (failure) {
    if (past.load !== load) return undefined;
    Object.assign(past, { state: past.state === "shown" ? "shown" : "none", isCut: true, why: failure.message });
    past.changed();
  }
  return undefined;
}

/** Of a span in which the record has nothing: the end of the record that is nearer to it; null: it has something. */
function endOfRecord(past, { from, to, first = from, last = to }) {
  if (from > last) past.wanted = Infinity;
  else if (to < first) past.wanted = first * 1000;
  else return null;
  return from > last ? {} : { from: first, to: first + SPAN_MS / 1000 };
}

/** When so many parts do not come near the wanted moment: a span that begins nearer to it; null: they do. */
function nearerSpan({ state, wanted, replay: { asked, entries, to, next } }) {
  const covered = entries.at(-1)[0] / 1000 - asked.from;
  const until = Math.min(wanted, to) / 1000;
  if (state !== "loading" || next === null || covered <= 0 || until - asked.from < 1.5 * covered) return null;
  return { from: until - covered, to: asked.to };
}

/** Show the record that came with this page, at a moment or at its end. */
export function openFile(past, record, ms) {
  Object.assign(past, { isFile: true, state: "loading", replay: addPart(emptyReplay(), record), wanted: ms });
  readAll(past, leaveSpan(past));
}

function cutShort(past) {
  past.replay.next = null;
  past.replay.to = past.replay.entries.at(-1)[0];
  past.why = "More happened in this span than a browser can hold: the rest of it is left out.";
}

function leaveSpan(past) {
  past.load += 1;
  past.leave.abort();
  Object.assign(past, { leave: new AbortController(), isCut: false });
  return past.load;
}

/** Back to the present. */
export function goLive(past) {
  leaveSpan(past);
  Object.assign(past, { state: "live", replay: null, isPlaying: false, why: "", skipped: null });
  past.changed();
}

/** Read what is here, a slice at a time, until all of the span is. */
function readAll(past, load) {
  if (past.load !== load) return;
  const end = performance.now() + SLICE_MS;
  while (readOn(past.replay, SLICE) && performance.now() < end);
  show(past);
  const { read, entries, next } = past.replay;
  if (read < entries.length || (next !== null && !past.isCut)) setTimeout(readAll, read < entries.length ? 0 : 30, past, load);
  past.changed();
}

/** Show the wanted moment as soon as everything up to it is read. */
function show(past) {
  const { replay, wanted } = past;
  const isHere = replay.next === null || (replay.entries.at(-1)?.[0] ?? 0) > wanted;
  if (wanted === null || !isHere || replay.read < placeOf(replay, Math.min(wanted, replay.to))) return;
  past.ms = Math.min(replay.to, Math.max(replay.from, wanted));
  past.wanted = null;
  past.state = "shown";
  goTo(replay, past.ms);
}

/** Go to a moment of the span. */
export function seek(past, ms) {
  if (!past.replay?.entries.length) return;
  Object.assign(past, { wanted: Math.min(past.replay.to, Math.max(past.replay.from, ms)), skipped: null });
  show(past);
  past.changed();
}

/** How much of the span is here, 0 to 1. */
export function shareRead({ replay }) {
  if (!replay?.entries.length) return 0;
  if (replay.next === null) return replay.entries.length ? replay.read / replay.entries.length : 1;
  const ms = replay.entries[Math.max(0, replay.read - 1)][0];
  return Math.min(0.99, Math.max(0, (ms - replay.from) / Math.max(1, replay.to - replay.from)));
}

/** Have time go on, or hold it; at the end of the span it begins anew. */
export function play(past, isOn, now) {
  if (past.state !== "shown") return;
  if (isOn && past.ms >= past.replay.to) seek(past, past.replay.from);
  Object.assign(past, { isPlaying: isOn, tickedAt: now });
  past.changed();
}

/** Let the time pass that has passed. */
export function tick(past, now) {
  if (!past.isPlaying) return;
  const end = past.ms + (now - past.tickedAt) * past.speed;
  past.tickedAt = now;
  const next = nextMoment(past.replay, past.ms) ?? past.replay.to;
  const silence = next - LEAD_MS - end;
  if (silence > WATCHED_MAX_MS * past.speed) past.skipped = { ms: silence, at: now };
  past.wanted = Math.min(past.replay.to, silence > WATCHED_MAX_MS * past.speed ? next - LEAD_MS : end);
  show(past);
  if (past.ms >= past.replay.to) past.isPlaying = false;
}
