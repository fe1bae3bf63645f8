// Absence: when somebody was away, and what an interval of the log holds. Pure: no DOM, no clock; time comes as an argument.
//
//   emptyHere(kept)                        nobody was seen yet; `kept`: what this tab noted before it was loaded again
//   watch(here, model, signs, now)         note that somebody is here, and when somebody came back
//   absenceOf(model, absent, now)          what happened meanwhile, counted; null: nothing
//
// It counts and quotes, and claims to understand nothing.

import { ageText, indexOf, lineOf, logEnd, many, momentOf, saidAs, threadOf } from "./model.js";
import { routeOf, wordsOfOnly } from "./only.js";

export const ABSENT_MS = 300_000; // shorter is a look out of the window
const LATE_MS = 60_000; // so long after somebody came back the line may still bring what was said before
const SILENCE_S = 600; // a longer one ends an exchange
const EXCHANGES = 3;
const ITEMS_MAX = 8; // of one kind; the rest is counted
const VOICES = 4; // that are named
const WORDS = 120;

export const emptyHere = (kept = null) => ({ at: 0, index: null, seq: 0, room: null, absent: null, hiddenAt: null, ...keptOf(kept) });

function keptOf(kept) {
  const isWhole = (one) => one !== null && typeof one === "object" && [one.at ?? one.from, one.seq].every(Number.isFinite);
  if (!isWhole(kept)) return {};
  return { at: kept.at, seq: kept.seq, room: kept.room, absent: isWhole(kept.absent) ? { ...kept.absent, index: null } : null };
}

/** What of it a tab notes, to know it when it is loaded again. */
export const noteOf = ({ at, seq, room, absent }) => ({ at, seq, room, absent: absent && { ...absent, index: null } });

/** Note a sign of somebody: `isHidden`, and `touchedAt`, ms, of the last input. True when somebody came back from an absence. */
export function watch(here, model, { isHidden, touchedAt }, now) {
  if (model.mode === null || model.isOpening) return false;
  if (isHidden) {
    if (here.hiddenAt === null) {
      const isLookedAt = now - touchedAt < ABSENT_MS && touchedAt - here.at < ABSENT_MS; // until then; a screen that locks by itself was not
      if (here.at && isLookedAt) seen(here, model, now);
      here.hiddenAt = now;
    }
    return false;
  }
  const sign = here.hiddenAt === null ? touchedAt : now; // who turns to the page is here
  here.hiddenAt = null;
  if (sign <= here.at) return false;
  const isBack = here.at > 0 && sign - here.at >= ABSENT_MS;
  const { at: from, index, seq, room } = here;
  if (isBack) here.absent = { ...(here.absent ?? { from, index, seq, room }), to: now }; // one that nobody has put away goes on
  seen(here, model, sign);
  return isBack;
}

function seen(here, model, at) {
  Object.assign(here, { at, index: logEnd(model), seq: model.lastSeq, room: model.room });
}

/** The place in the conversation from which on it was said in an absence. */
export function beginOf(model, { index, seq, room }) {
  if (index !== null && index !== undefined) return index;
  if (room !== model.room) return model.logStart;
  const last = model.log.findLastIndex((message) => message.seq > 0 && message.seq <= seq && indexOf(model, message.id) >= 0);
  return model.logStart + last + 1;
}

/** Whether it may still change what was said in it. */
export const isFresh = ({ to }, now) => now - to < LATE_MS;

export function absenceOf(model, absent, now) {
  const begin = beginOf(model, absent);
  const until = momentOf(model, now) - Math.max(0, now - absent.to);
  const log = model.log.slice(Math.max(0, begin - model.logStart)).filter(({ ts, seq }) => (seq > 0 || ts * 1000 >= absent.from) && ts * 1000 <= until + 1000);
  const said = log.filter((message) => message.seq > 0 && message.origin !== "hub" && message.kind !== "marker");
  const found = {
    from: absent.from, to: absent.to,
    said: said.length, chars: said.reduce((sum, { content }) => sum + content.length, 0),
    missing: missingOf(model, absent, begin), hasHole: log.some((message) => message.isHole),
    parts: [
      ["By lane", lanesOf(said)],
      ["Decisions", decisionsOf(model, absent, until)],
      ["Stops and pauses", stopsOf(model, absent, until, begin)],
      ["Losses", lossesOf(model, log, absent)],
      ["Still open", openOf(model, absent, until)],
      ["Came", movesOf(log, CAME)],
      ["Went", movesOf(log, WENT)],
      ["Hub", log.filter((message) => tellsOf(message) === "RoomReopened" || message.kind === "marker").map((message) => itemOf(message, message.content))],
      ["Longest exchanges", exchangesOf(model, said)],
    ].filter(([, items]) => items.length).map(([title, items]) => ({ title, items: items.slice(0, ITEMS_MAX), more: Math.max(0, items.length - ITEMS_MAX) })),
  };
  return found.parts.length || found.missing ? found : null;
}

/** How many messages of it this page does not have, and the first of them. */
function missingOf(model, { index, seq, room }, begin) {
  if (index !== null && index !== undefined) return begin < model.logStart ? { count: model.logStart - begin, seq: seq + 1 } : null;
  if (room !== model.room) return null;
  const first = model.log.find((message) => message.seq > 0);
  return first && first.seq > seq + 1 ? { count: first.seq - seq - 1, seq: seq + 1 } : null;
}

const itemOf = (message, text) => ({ text: lineOf(text, WORDS), go: ["message", message.id, message.seq] });

function lanesOf(said) {
  const lanes = new Map(); // route -> {count, chars, first}
  for (const message of said) {
    const route = routeOf(message);
    const lane = lanes.get(route) ?? { route, count: 0, chars: 0, first: message };
    lane.count += 1;
    lane.chars += message.content.length;
    lanes.set(route, lane);
  }
  return [...lanes.values()].sort((a, b) => b.count - a.count || b.chars - a.chars).map(({ route, count, chars, first }) => (
    { text: `${route === "all" ? "everyone" : wordsOfOnly(route)}: ${many(count, "message")}, ${many(chars, "character")}`, go: ["only", route, first.id, first.seq] }));
}

function decisionsOf(model, { from }, until) {
  return model.settled.filter(({ at }) => at >= from && at <= until).map(({ id, title, status, answers, summary }) => {
    const told = answers.map(([label, value]) => `${label}: ${value}`).join("; ") || summary || "";
    const answer = model.log.findLast((message) => message.meta?.form_id === id);
    return { text: lineOf(`${title}: ${status}${told ? `, ${told}` : ""}`, WORDS), go: answer ? ["message", answer.id, answer.seq] : ["form", id] };
  });
}

function stopsOf(model, { from }, until, begin) {
  const spans = model.spans.filter((span) => ["mode", "pause", "loop"].includes(span.kind) && span.from >= from && span.from <= until);
  return spans.map((span) => {
    const near = model.log.find((message, at) => at + model.logStart >= begin && message.ts * 1000 >= span.from - 1) ?? model.log.at(-1);
    const where = span.who ?? (span.scope ? wordsOfOnly(span.scope) : "the room");
    const lasted = span.to === null ? "and still is" : `for ${ageText((span.to - span.from) / 1000)}`;
    return { text: `${where} was ${span.word}, ${lasted}`, go: near ? ["message", near.id, near.seq] : null };
  });
}

const LOST = /^(.+)'s mailbox is full: (\d+) lost, the latest is/s;

/** What full mailboxes lost, as the hub has told, who counts on from when one began to lose; and what its receipts say was lost. */
function lossesOf(model, log, { from }) {
  const [told, before] = [new Map(), new Map()]; // name -> {count, message}; name -> what the hub counted last
  for (const message of model.log.filter(({ origin, seq, ts }) => origin === "hub" && seq === 0 && (ts * 1000 < from || log.at(-1)?.ts >= ts))) {
    const [, name, text] = (tellsOf(message) === "MailboxOverflowed" && LOST.exec(message.content)) || [];
    if (name === undefined) continue;
    const [count, known] = [Number(text), before.get(name) ?? 0];
    before.set(name, count);
    if (message.ts * 1000 >= from) told.set(name, { count: (told.get(name)?.count ?? 0) + (count < known ? count : count - known), message });
  }
  const lost = log.filter((message) => model.receipts.get(message.id)?.lost > 0);
  return [
    ...[...told].map(([name, { count, message }]) => ({ ...itemOf(message, ""), text: `${name} lost ${many(count, "message")}` })),
    ...(lost.length ? [{ ...itemOf(lost[0], ""), text: `${many(lost.length, "message")} said then did not reach everybody` }] : []),
  ];
}

function openOf(model, { from }, until) {
  const isOfIt = ({ ts }) => ts * 1000 >= from && ts * 1000 <= until + 1000;
  const forms = model.forms.filter(isOfIt).map(({ id, asker, title }) => ({ text: lineOf(`${asker} asks: ${title}`, WORDS), go: ["form", id] }));
  const owed = model.owed.filter(isOfIt).map(({ seq, asker, to, text }) => (
    { text: lineOf(`${asker === "human" ? "the operator" : asker} asks ${to === "human" ? "the operator" : to === "all" ? "everyone" : to}: ${text}`, WORDS), go: ["message", saidAs(model, seq)?.id ?? null, seq] }));
  return [...forms, ...owed];
}

/** The event that a line of the hub tells of: the words in it are partly its peers'. */
const tellsOf = ({ origin, seq, meta }) => (origin === "hub" && seq === 0 ? meta?.event : undefined);

const CAME = ["PeerJoined", "PeerRevived"];
const WENT = ["PeerLeft", "PeerReaped"];

function movesOf(log, events) {
  const moves = new Map(); // what happened to whom, once each: name and word -> {text, message, count}
  for (const message of log.filter((one) => events.includes(tellsOf(one)))) {
    moves.set(message.content, { message, count: (moves.get(message.content)?.count ?? 0) + 1 });
  }
  return [...moves].map(([text, { message, count }]) => itemOf(message, count > 1 ? `${text}, ${count} times` : text));
}

/** Runs in one thread, or else in one lane without a long silence, of two voices or more: the longest, by their first lines. */
function exchangesOf(model, said) {
  const [all, open] = [[], new Map()]; // open: thread or lane -> its exchange that goes on
  for (const message of said) {
    const key = model.roots.has(message.id) ? threadOf(model, message.id) : routeOf(message);
    let one = open.get(key);
    if (!one || message.ts - one.last > SILENCE_S) {
      one = { first: message, count: 0, chars: 0, voices: new Set() };
      all.push(one);
      open.set(key, one);
    }
    one.count += 1;
    one.chars += message.content.length;
    one.last = message.ts;
    one.voices.add(message.origin === "operator" ? "the operator" : message.sender);
  }
  const longest = all.filter(({ voices }) => voices.size > 1).sort((a, b) => b.count - a.count || b.chars - a.chars).slice(0, EXCHANGES);
  return longest.map(({ first, count, voices }) => (
    { ...itemOf(first, ""), text: `${many(count, "message")} of ${[...voices].slice(0, VOICES).join(", ")}${voices.size > VOICES ? " and others" : ""}: “${lineOf(first.content, WORDS)}”` }));
}
