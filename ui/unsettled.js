// Unsettled: what waits for the operator beyond one look at the page: words to him that have no answer, needs that were
// waved away, and what died with a room. Kept through a reload of the tab; a new room has none of the old one's.
//
//   openUnsettled(storage)    {look(model), dismiss(need), isDismissed(need), forget()}
//   callsOf(model)            words to the operator without an answer, the oldest first; each as little as shows it
//   DIED_TEXT                 what tells everybody that their questions are gone

import { keepIn, keptIn } from "./kept.js";
import { isToOperator, lineOf, logEnd } from "./model.js";

const KEY = "caucus.unsettled";
const OF_ONE_MAX = 20; // words of one peer, each a line; older ones of it are counted
const DISMISSED_MAX = 500;
const TEXT_MAX = 140;
const DIED_NAMED = 20; // questions of an old room, each by its title; all are counted

export const DIED_TEXT = "The hub started anew and has forgotten the questions that waited for the operator. Who still needs an answer, please ask again.";

const MENTION = /(?:^|[^\p{L}\p{N}_@.])@(?:operator|human)(?![\p{L}\p{N}_])/iu;

/** A peer that wants the operator's eye speaks to `human`, or writes @operator in its text. */
export const isForOperator = (message) => message.origin === "agent" && !(isToOperator(message) && message.expects_answer) && (isToOperator(message) || MENTION.test(message.content));

const memos = new WeakMap(); // model -> {room, upTo, found}: a message is read once

export function callsOf(model) {
  const memo = memoOf(model);
  if (memo.appeals !== model.appeals) takeAppeals(memo, model);
  for (memo.upTo = Math.max(memo.upTo, model.logStart); memo.upTo < logEnd(model); memo.upTo += 1) {
    const message = model.log[memo.upTo - model.logStart];
    if (message.kind === "marker") continue;
    if (message.origin === "operator" && message.reply_to) memo.found = memo.found.filter((old) => old.seq !== message.reply_to);
    else if (isForOperator(message) && !memo.found.some((old) => old.id === message.id)) memo.found = fitted([...memo.found, callOf(message)], message.sender);
  }
  return memo.found;
}

/** What the hub knows as the line opens: also what was said while it was cut, and what was answered elsewhere. */
function takeAppeals(memo, model) {
  memo.appeals = model.appeals;
  const listed = new Set(model.appeals.map(({ id }) => id)), newest = model.lastSeq;
  const kept = memo.found.filter((one) => one.recipient !== "human" || listed.has(one.id) || one.seq > newest);
  const known = new Set(kept.map(({ id }) => id));
  const more = model.appeals.filter(({ id }) => !known.has(id)).map(({ seq, id, sender, text, ts }) => ({ id, seq, sender, recipient: "human", content: text, ts, before: 0 }));
  memo.found = [...kept, ...more].sort((a, b) => a.seq - b.seq);
}

function memoOf(model) {
  const known = memos.get(model);
  if (known && (known.room === model.room || known.room === null)) return Object.assign(known, { room: model.room });
  const memo = { room: model.room, upTo: known?.upTo ?? model.logStart, found: [] };
  if (known) for (memo.upTo = logEnd(model); memo.upTo > model.logStart && model.log[memo.upTo - 1 - model.logStart].kind !== "marker";) memo.upTo -= 1;
  memos.set(model, memo);
  return memo;
}

const callOf = ({ id, seq, sender, recipient, content, ts }) => ({ id, seq, sender, recipient, content: lineOf(content, TEXT_MAX), ts, before: 0 });

/** Of one peer that writes and writes, the oldest line gives its place up, and is counted. */
function fitted(found, sender) {
  const own = found.filter((one) => one.sender === sender);
  if (own.length <= OF_ONE_MAX) return found;
  own[1].before += own[0].before + 1;
  return found.filter((one) => one !== own[0]);
}

/** What waits for the operator's answer in this room, in so far as a restart would forget it. */
const openOf = (model) => [
  ...model.forms.map(({ id, asker, title }) => ({ id, asker, text: lineOf(title, TEXT_MAX) })),
  ...model.owed.filter(({ to }) => to === "human").map(({ seq, asker, text }) => ({ id: `${seq}`, asker, text: lineOf(text, TEXT_MAX) })),
  ...callsOf(model).map(({ id, sender, content }) => ({ id, asker: sender, text: content })),
];

export function openUnsettled(storage) {
  const kept = { room: null, calls: [], open: [], count: 0, dismissed: [], died: null, ...keptIn(storage, KEY) };
  const dismissed = new Set(kept.dismissed);
  let written = JSON.stringify(kept);
  let isTaken = false; // what was kept has come back into the model

  const write = () => {
    const now = { ...kept, dismissed: [...dismissed].slice(-DISMISSED_MAX) };
    const text = JSON.stringify(now);
    if (text !== written) keepIn(storage, KEY, now);
    written = text;
  };
  return {
    /** Take a room that is told whole: bring back what was kept of it, or note what died with the one before. */
    look(model, now) {
      if (kept.room !== null && kept.room !== model.room && kept.count > 0) {
        kept.died = { room: kept.room, open: kept.open, count: kept.count, at: now };
      }
      if (!isTaken && kept.room === model.room) restore(model, kept.calls);
      isTaken = true;
      const open = openOf(model);
      Object.assign(kept, { room: model.room, calls: callsOf(model), open: open.slice(0, DIED_NAMED), count: open.length });
      if (kept.died && isTold(model, kept.died)) kept.died = null;
      model.died = kept.died;
      write();
    },
    dismiss(id) {
      dismissed.add(id);
      write();
    },
    isDismissed: (id) => dismissed.has(id),
    /** Let go what was waved away and has no cause any more: with a new cause it is shown again. */
    retain(ids) {
      for (const id of dismissed) if (!ids.has(id)) dismissed.delete(id);
      write();
    },
    forget: () => keepIn(storage, KEY, null),
  };
}

function restore(model, calls) {
  const known = new Map(callsOf(model).map((one) => [one.id, one]));
  const answered = new Set(model.log.filter((one) => one.origin === "operator" && one.reply_to).map((one) => one.reply_to));
  const old = calls.filter((one) => !known.has(one.id) && !answered.has(one.seq));
  memoOf(model).found = [...old, ...known.values()].sort((a, b) => a.seq - b.seq);
}

/** Whether everybody was told of it since. */
const isTold = (model, { at }) => model.log.some((one) => one.origin === "operator" && one.content === DIED_TEXT && one.ts * 1000 >= at - 5_000);
