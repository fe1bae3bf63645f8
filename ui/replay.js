// Replay: the room as it was, by the console's own model. The hub tells what a console would have been sent, and when; this
// hands it to the model up to a moment. Pure: no DOM, no clock, no socket.
//
//   emptyReplay()             nothing is known of the past yet
//   addPart(replay, part)     take a part of GET /replay, or the whole record of a file
//   readOn(replay, entries)   read so many entries on; false when all that is here is read
//   goTo(replay, ms)          the model of the room at that moment; the same object as before when time only went on
//
// An entry: [ms, serial, frame, mark?]. Now and then a copy of the model is kept, so that a jump applies a few hundred
// entries and not a whole day of them.

import { applyAll, applyLink, copyOf, emptyModel } from "./model.js";
import { lowest } from "./picture.js";

const COPIES_MAX = 32; // of the model; more, and every second one goes
const COPY_EVERY = 500; // entries, at first
const STILL_MS = 300_000; // a longer silence takes no more room than this on the slider
const LINK = { state: "open", role: "observer", auth: false, since: 0 }; // nothing can be done to the past

export function emptyReplay() {
  return {
    entries: [],
    from: 0, to: 0, // ms: the span, as far as the record reaches into it
    asked: null, // {from, to}, s, as the hub was asked: it knows by them what to go on with
    first: 0, last: 0, // ms: how far the record reaches
    channel: "", version: "",
    next: 0, // what to ask for next; null: that was all
    marks: [], // {ms, at, kind, text}, at: one past its entry
    knots: [], // {ms, x}: where a moment is on the slider
    copies: [], // {at, model}: the model when so many entries were applied
    every: COPY_EVERY,
    read: 0, // entries, by the reader
    reader: null,
    shown: null, // the model at the moment that is shown
    at: 0, // entries that it has taken
    applied: 0, // entries that the last jump had to apply: a figure for tests
  };
}

export function addPart(replay, part) {
  const [first, last] = [Math.floor((part.first ?? part.from) * 1000), Math.ceil((part.last ?? part.to) * 1000)];
  const isFirst = replay.entries.length === 0;
  if (isFirst) Object.assign(replay, { asked: { from: part.from, to: part.to }, channel: part.channel ?? "", version: part.version });
  if (isFirst) Object.assign(replay, { from: Math.min(part.to * 1000, Math.max(part.from * 1000, first)), to: Math.max(part.from * 1000, Math.min(part.to * 1000, last)) });
  if (isFirst) replay.knots.push({ ms: replay.from, x: 0 });
  Object.assign(replay, { first, last, next: part.next ?? null });
  for (const entry of part.entries) {
    replay.entries.push(entry);
    lengthen(replay, entry[0]);
    if (entry[3]) replay.marks.push({ ms: entry[0], at: replay.entries.length, ...entry[3] });
  }
  replay.to = Math.max(replay.to, replay.knots.at(-1).ms); // what was said while it was read
  if (replay.next === null) lengthen(replay, replay.to);
  return replay;
}

/** When message `seq` was said, ms; null when it is not in the span. */
export function momentOfSeq(replay, seq) {
  return replay?.entries.find(([, , frame]) => frame.type === "message" && frame.message?.seq === seq)?.[0] ?? null;
}

function lengthen(replay, ms) {
  const last = replay.knots.at(-1);
  const silence = ms - last.ms;
  if (silence <= 0) return;
  replay.knots.push({ ms, x: last.x + Math.min(silence, STILL_MS) });
}

/** How long the slider is, in ms of it. */
export const lengthOf = (replay) => replay.knots.at(-1)?.x ?? 0;

/** Where a moment is on the slider. */
export const xOf = (replay, ms) => between(replay.knots, ms, "ms", "x");

/** Which moment a place on the slider is. */
export const msOf = (replay, x) => between(replay.knots, x, "x", "ms");

function between(knots, value, from, to) {
  const next = lowest(knots, (knot) => knot[from] > value);
  if (next === 0) return knots[0]?.[to] ?? 0;
  if (next === knots.length) return knots.at(-1)[to];
  const [a, b] = [knots[next - 1], knots[next]];
  return a[to] + ((value - a[from]) / (b[from] - a[from])) * (b[to] - a[to]);
}

/** How many entries there were at a moment. */
export const placeOf = (replay, ms) => lowest(replay.entries, (entry) => entry[0] > ms);

/** The moment at which something more happens than at this one; null: nothing does. */
export const nextMoment = (replay, ms) => replay.entries[placeOf(replay, ms)]?.[0] ?? null;

/** The next (1) or the previous (-1) mark from a moment; undefined when there is none. */
export function markFrom(replay, ms, step) {
  const next = lowest(replay.marks, (mark) => mark.ms > ms);
  return step > 0 ? replay.marks[next] : replay.marks.slice(0, next).findLast((mark) => mark.ms < ms);
}

/** The last mark up to a moment. */
export const markAt = (replay, ms) => replay.marks[lowest(replay.marks, (mark) => mark.ms > ms) - 1];

// ---- the models -------------------------------------------------------------------------------------------------

const fresh = () => applyLink(emptyModel(), LINK);

export function readOn(replay, count) {
  replay.reader ??= fresh();
  const end = Math.min(replay.entries.length, replay.read + count);
  while (replay.read < end) {
    if (replay.read % replay.every === 0 && replay.read > 0) keep(replay);
    const next = Math.min(end, (Math.floor(replay.read / replay.every) + 1) * replay.every);
    take(replay, replay.reader, replay.read, next);
    replay.read = next;
  }
  return end < replay.entries.length;
}

function keep(replay) {
  replay.copies.push({ at: replay.read, model: copyOf(replay.reader) });
  if (replay.copies.length <= COPIES_MAX) return;
  replay.every *= 2;
  replay.copies = replay.copies.filter(({ at }) => at % replay.every === 0);
}

export function goTo(replay, ms) {
  const end = placeOf(replay, ms);
  const isOn = replay.shown !== null && end >= replay.at && end - replay.at < replay.every;
  if (!isOn) {
    const copy = replay.copies[lowest(replay.copies, ({ at }) => at > end) - 1];
    const near = replay.shown !== null && replay.at <= end && replay.at >= (copy?.at ?? 0); // nearer than any copy
    if (!near) Object.assign(replay, { shown: copy ? copyOf(copy.model) : fresh(), at: copy?.at ?? 0 });
  }
  replay.applied = end - replay.at;
  take(replay, replay.shown, replay.at, end);
  replay.at = end;
  return replay.shown;
}

const take = (replay, model, from, end) => applyAll(model, wholes(replay, model, from, end));

function* wholes(replay, model, from, end) {
  for (let at = from; at < end; at += 1) {
    const [ms, , frame] = replay.entries[at];
    yield [ms, whole(model, frame, ms)]; // when those before are taken
  }
}

// ---- what the record has only the changes of --------------------------------------------------------------------

const UNKNOWN = { listening: null, last_seen_age: null, quiet: false, status_stale: false, deaf_age: null, stop_told: null, wake: null, brake: null };

/** Give a frame whole: the record has only what changed of what is owed and of each peer, and moments in place of ages. */
function whole(model, frame, ms) {
  if (frame.type === "owed") {
    const gone = new Set(frame.gone);
    return { ...frame, owed: [...model.owed.filter(({ seq }) => !gone.has(seq)), ...frame.changed] };
  }
  const list = frame.type === "snapshot" ? "peers" : frame.type === "peers" ? "changed" : null;
  if (list === null) return frame;
  const known = new Map(frame.type === "snapshot" ? [] : model.peers.map((peer) => [peer.name, peer]));
  return { ...frame, [list]: frame[list].map((row) => aged({ ...UNKNOWN, ...known.get(row.name), ...row }, ms)) };
}

const aged = (row, ms) => ({ ...row, uptime: ms / 1000 - row.joined, status_age: (row.status_at ?? null) === null ? null : ms / 1000 - row.status_at });
