// Needs: what waits for the operator, each with its cause in words and the deed that helps; and the reading debt.
// Pure: no DOM, no clock; time comes as an argument.
//
//   owedOf(model)                     who owes whom: [{seq, id, asker, to, text, since, nudgedAt, acts: [{word, frame | go}]}], the oldest first
//   needsOf(model, now)               [{id, kind, text, since, help: {word, frame | go}, isQuiet?}], the most urgent first; for a quiet one nobody is called
//   owe(debt, model, looks, now)      count what arrived since the operator last looked

import { ARROW, GO_ON, UNWOKEN_S, ageText, isNamedIn, isOperator, isToOperator, lineOf, logEnd, passedSince, saidAs } from "./model.js";
import { listed, stopReach } from "./deeds.js";
import { budgetNeeds, isSpent } from "./spent.js";

const DEAF_S = 60; // an agent between two polls is busy; longer, and nobody comes to fetch its mail
const NOBODY_S = 10; // longer than a waiter takes to ask again
const HEAP = 20; // messages in one mailbox: even a listening peer does not keep up
const STICK_S = 300; // a turn at the talking stick is a minute or two
const STOP_GRACE_S = 5; // a parked poll is answered at once; whoever lacks the stop then is not listening

/** Everything that waits, in order of urgency. A need keeps its id for as long as its cause lasts. */
export function needsOf(model, now) {
  return [...stopNeeds(model, now), ...budgetNeeds(model, now), ...heldNeeds(model), ...formNeeds(model), ...questionNeeds(model), ...mentionNeeds(model), ...quietNeeds(model, now), ...overdueNeeds(model, now), ...stuckNeeds(model, now), ...stickNeeds(model, now), ...slowNeeds(model)];
}

// ---- forms ------------------------------------------------------------------------------------------------------

function formNeeds(model) {
  return model.forms.map((form) => ({
    id: `form:${form.id}`, kind: "form", who: form.asker, verb: "asks", text: excerpt(form.title), since: form.ts * 1000, help: { word: "Answer", go: ["form", form.id] },
  }));
}

// ---- who owes whom an answer ------------------------------------------------------------------------------------

const OVERDUE_S = 180; // agents answer within their turn; a question that is older has been forgotten, or its peer is stuck
export const NUDGE_S = 60; // a second nudge within this reminds nobody of anything

/** Every question without an answer, the oldest first, and what the operator can do about it. */
export const owedOf = (model) => model.owed.map((debt) => debtOf(model, debt));

function debtOf(model, debt) {
  const nudgedAt = nudgesOf(model).get(debt.seq) ?? null;
  return { ...debt, id: saidAs(model, debt.seq)?.id ?? null, since: debt.ts * 1000, nudgedAt, acts: actsOn(model, debt) };
}

/** A question that is older than what this page has is answered all the same: its number and its first words are known. */
function actsOn(model, { seq, asker, to, text }) {
  const settle = { word: "Settle", title: "Nobody owes an answer to it any more", frame: { say: "Settled by the operator: this needs no answer any more.", settles: seq } };
  if (to !== "human") return [{ word: "Nudge", title: `Remind ${nameOfScope(model, to)} of it`, frame: nudgeFor(seq, to) }, settle];
  const message = saidAs(model, seq) ?? { seq, id: null, sender: asker, recipient: to, content: text, origin: "agent" };
  return [{ word: "Answer", title: "Answer it in the composer", go: ["reply", message] }, settle];
}

/** The operator, to whoever reads this page. */
export const you = (model) => (isOperator(model) ? "you" : "the operator");
export const nameOfScope = (model, scope) => ({ all: "everyone", human: you(model) })[scope] ?? scope;

/**
 * A word to the one who owes, without any word or name of a peer: it is said in the operator's voice. To several it is no
 * answer to the question, for the first answer of anybody would settle it.
 */
function nudgeFor(seq, to) {
  const isLane = to === "all" || to.startsWith("#");
  const say = isLane ? `Somebody please answer message ${seq}, with say(reply_to=${seq}).` : `Please answer this, or decline it, with say(reply_to=${seq}) / say(declines=${seq}).`;
  return { say, to, ...(!isLane && { reply_to: seq }) };
}

const NUDGE = /^(?:Please|Somebody please) answer .*with say\(reply_to=(\d+)\)/;
const nudgeMemo = new WeakMap(); // model -> {room, upTo, at}: a message is read once

/** When the operator last reminded of a question: seq -> ms. */
function nudgesOf(model) {
  let memo = nudgeMemo.get(model);
  if (memo?.room !== model.room) nudgeMemo.set(model, memo = { room: model.room, upTo: memo?.upTo ?? 0, at: new Map() });
  for (memo.upTo = Math.max(memo.upTo, model.logStart); memo.upTo < logEnd(model); memo.upTo += 1) {
    const { origin, content, ts } = model.log[memo.upTo - model.logStart];
    const seq = origin === "operator" && NUDGE.exec(content)?.[1];
    if (seq) memo.at.set(Number(seq), ts * 1000);
  }
  return memo.at;
}

function questionNeeds(model) {
  return model.owed.filter((debt) => debt.to === "human").map((debt) => debtOf(model, debt)).map((debt) => ({
    id: `question:${model.room}:${debt.seq}`, kind: "question", who: debt.asker, verb: `asks ${you(model)}`, text: excerpt(debt.text), since: debt.since,
    help: { word: "Answer", go: debt.acts[0].go },
  }));
}

function overdueNeeds(model, now) {
  if (model.mode !== "running") return [];
  const isOverdue = ({ seq, ts, to }) => to !== "human" && now - Math.max(ts * 1000, nudgesOf(model).get(seq) ?? 0) >= OVERDUE_S * 1000;
  return model.owed.filter(isOverdue).map((debt) => debtOf(model, debt)).map((debt) => ({
    id: `owed:${model.room}:${debt.seq}`, kind: "owed", who: debt.asker === "human" ? null : debt.asker,
    text: `${debt.asker !== "human" ? "waits" : isOperator(model) ? "You wait" : "The operator waits"} for an answer of ${debt.to === "all" ? "anybody" : debt.to}: ${excerpt(debt.text)}`, since: debt.since,
    help: { word: "Nudge", frame: debt.acts[0].frame },
  }));
}

// ---- a stop that not everybody has ------------------------------------------------------------------------------

function stopNeeds(model, now) {
  const found = stopReach(model);
  const since = model.modeAt ?? null;
  if (!found || found.untold.length === 0 || (since !== null && now - since < STOP_GRACE_S * 1000)) return [];
  const one = found.untold.length === 1 ? found.untold[0] : null;
  const all = found.told.length + found.untold.length;
  return [{
    id: `stop:${found.untold.join("\n")}`, kind: "stop", who: one,
    text: `${one ? "does" : `${listed(found.untold)} do`} not know of the stop yet (${found.told.length} of ${all} do): `
      + `${one ? "it has" : "they have"} not called the hub since.`, since,
    help: one ? kickHelp(one) : { word: "Show them", go: ["roster", found.untold[0]] },
  }];
}

const kickHelp = (name) => ({ word: `Kick ${name}`, frame: { kick: name } });

// ---- a room in which nobody speaks ------------------------------------------------------------------------------

const QUIET_WHY = 3; // reasons that are shown; the rest are counted
const QUIET_WORDS = { converged: "it has converged", died: "it has died" }; // if it waits for the operator, what waits is a need of its own

function quietNeeds(model, now) {
  const quiet = model.mode === "running" ? model.health?.quiet : null;
  if (!Object.hasOwn(QUIET_WORDS, quiet?.state ?? "")) return [];
  const more = quiet.why.length - QUIET_WHY;
  const why = [...quiet.why.slice(0, QUIET_WHY), ...(more > 0 ? [`and ${more} more`] : [])].join("; ");
  return [{
    id: `quiet:${quiet.state}`, kind: quiet.state, text: `Nobody has spoken for ${ageText(now / 1000 - quiet.since)}, and ${QUIET_WORDS[quiet.state]}: ${why}.`,
    since: quiet.since * 1000, help: quiet.state === "died" ? revive(model) : { word: "Stop all", frame: { action: "stop" } },
  }];
}

/** What helps first: a reminder of who owes an answer, else a stick put away, else a look at whom mail waits for. */
function revive(model) {
  const debt = model.owed.find(({ to }) => to !== "human");
  if (debt) return { word: "Nudge", frame: debtOf(model, debt).acts[0].frame };
  const floor = Object.values(model.floors).find(({ hands }) => hands.length > 0);
  if (floor) return { word: "Clear the stick", frame: { floor: { action: "clear", scope: floor.scope } } };
  return { word: "Show", go: ["roster", model.peers.find((peer) => peer.waiting > 0)?.name] };
}

// ---- lanes that go round in circles -----------------------------------------------------------------------------

/** The words for what has become of such a lane. */
export function stateOfLoop({ state, level, credit }) {
  if (state === "held") return "held";
  if (state === "closed") return "closed by the operator: agents say nothing there";
  if (state === "free") return "may run: it is not held again";
  const pace = level === "slow" ? "slowed" : "watched";
  return credit ? `${pace}; ${credit} of ${GO_ON} messages left` : level === "hint" ? "watched: who speaks there is told" : pace;
}

/** "ann and bob go", "#plans goes". */
const goesOf = (model, lane) => (lane.includes(ARROW) ? `${listed(lane.split(ARROW))} go` : `${nameOfScope(model, lane)} goes`);

/** A lane that is held waits for the operator. */
function heldNeeds(model) {
  return model.loops.lanes.filter(({ state }) => state === "held").map(({ lane, words, waiting, ts }) => ({
    id: `held:${model.room}:${lane}:${ts}`, kind: "loop", since: ts * 1000, help: { word: "Rule on it", go: ["loop", lane] },
    text: `${goesOf(model, lane)} round in circles and ${lane.includes(ARROW) ? "are" : "is"} held: ${excerpt(words)}; ${waiting} ${waiting === 1 ? "message waits" : "messages wait"}.`,
  }));
}

/** A lane that is slowed may wait: nobody is called for it. Of a mere hint only the lane's own place tells. */
function slowNeeds(model) {
  const slowed = model.loops.lanes.filter(({ state, level, credit }) => state === "watched" && level === "slow" && !credit);
  return slowed.map(({ lane, words, ts }) => ({
    id: `slow:${model.room}:${lane}`, kind: "slow", since: ts * 1000, help: { word: "Look at it", go: ["loop", lane] }, isQuiet: true,
    text: `${goesOf(model, lane)} round in circles and ${lane.includes(ARROW) ? "are" : "is"} slowed: ${excerpt(words)}.`,
  }));
}

// ---- words to the operator --------------------------------------------------------------------------------------

const MENTION = /(?:^|[^\p{L}\p{N}_@.])@(?:operator|human)(?![\p{L}\p{N}_])/iu;
const MENTIONS_MAX = 5; // the newest; older ones are in the flow
const MENTION_SEEN = 500; // newest entries that are looked at

/** A peer that wants the operator's eye speaks to `human`, or writes @operator in its text. */
export const isForOperator = (message) => message.origin === "agent" && !(isToOperator(message) && message.expects_answer) && (isToOperator(message) || MENTION.test(message.content));

const mentionMemo = new WeakMap(); // model -> {upTo, found}: a message is tested once

function mentionsOf(model) {
  const memo = mentionMemo.get(model) ?? { upTo: model.logStart, found: [] };
  mentionMemo.set(model, memo);
  memo.upTo = Math.max(memo.upTo, logEnd(model) - MENTION_SEEN, model.logStart);
  for (; memo.upTo < logEnd(model); memo.upTo += 1) {
    const message = model.log[memo.upTo - model.logStart];
    if (message.origin === "operator") memo.found = memo.found.filter((old) => !isAnswered(old, message));
    else if (isForOperator(message)) memo.found = [...memo.found, message].slice(-MENTIONS_MAX);
  }
  return memo.found;
}

/** The operator spoke where the question was asked, or to the one who asked. */
const isAnswered = (question, word) => word.recipient === question.recipient || isNamedIn(word.recipient, question.sender);

function mentionNeeds(model) {
  return mentionsOf(model).map((message) => ({
    id: `mention:${message.id}`, kind: "mention", who: message.sender, verb: `writes to ${you(model)}`, text: excerpt(message.content), since: message.ts * 1000,
    help: { word: "Show", go: ["message", message.id, message.seq] },
  }));
}

const EXCERPT = 140;
const excerpt = (text) => lineOf(text, EXCERPT);

// ---- peers that are deaf or stuck -------------------------------------------------------------------------------

function stuckNeeds(model, now) {
  if (model.mode !== "running") return []; // held or stopped: that mail waits is what the operator wanted
  const held = model.peers.filter((peer) => !peer.paused && !isSpent(model, peer.name) && waitingOf(peer) > 0);
  return held.map((peer) => stuckNeed(peer, passedSince(model, peer, now), now)).filter(Boolean);
}

/** What it could fetch: not what waits in lanes that are held. */
const waitingOf = (peer) => (peer.waiting ?? 0) - (peer.held ?? 0);

function stuckNeed(peer, passed, now) {
  const waiting = waitingOf(peer);
  const unheard = (peer.deaf_age ?? peer.last_seen_age ?? 0) + passed;
  const mail = `${waiting} ${waiting === 1 ? "message waits" : "messages wait"} in its mailbox`;
  const help = peer.wake?.kind === "waits" ? { word: `Ring ${peer.name}`, frame: { ring: peer.name } } : { word: `Ping ${peer.name}`, frame: { heartbeat: peer.name } };
  const unwoken = peer.wake?.open_ts ? now / 1000 - peer.wake.open_ts : 0;
  const need = (text) => ({ id: `deaf:${peer.name}`, kind: "deaf", who: peer.name, text, since: now - unheard * 1000, help });
  if (waiting === 0) return null;
  if (peer.state === "reaped") return need(`is away for ${ageText(unheard)}: ${mail}. Its own user can wake it.`);
  if (unwoken >= UNWOKEN_S) return need(`was woken ${ageText(unwoken)} ago and has not called since: ${mail}.`);
  if (peer.wake?.kind === "nobody waits" && unheard >= NOBODY_S) return need(`cannot be woken, for nobody waits beside it: ${mail}. Its next turn starts a waiter again.`);
  if (!peer.listening && unheard >= DEAF_S) return need(`does not listen for ${ageText(unheard)}: ${mail}. It works, or it forgot to listen again.`);
  return waiting >= HEAP ? need(`does not keep up: ${mail}.`) : null;
}

// ---- sticks -----------------------------------------------------------------------------------------------------

function stickNeeds(model, now) {
  return Object.values(model.floors).filter((floor) => now / 1000 - floor.since >= STICK_S).map((floor) => ({
    id: `stick:${floor.scope}:${floor.holder}`, kind: "stick", who: floor.holder,
    text: `holds the stick of ${floor.scope === "all" ? "the whole room" : floor.scope} for ${ageText(now / 1000 - floor.since)}`
      + `${floor.hands.length ? `; ${listed(floor.hands)} ${floor.hands.length === 1 ? "waits" : "wait"}` : ""}.`,
    since: floor.since * 1000, help: { word: "Clear the stick", frame: { floor: { action: "clear", scope: floor.scope } } },
  }));
}

// ---- reading debt -----------------------------------------------------------------------------------------------

export const READ_PER_MIN = 1_400; // characters: 238 words a minute of silent reading, six characters each with the space

export const emptyDebt = () => ({ upTo: null, chars: 0, since: null, at: 0 });

/**
 * Count the agents' characters that arrived while the operator was not looking; while looking they are paid back at
 * reading speed. `since` is when the operator last looked and owed nothing.
 */
export function owe(debt, model, looks, now) {
  const end = logEnd(model);
  if (debt.upTo === null && (model.mode === null || model.isOpening)) return debt;
  debt.upTo ??= end; // what was said before this page opened is history, not debt
  const passed = debt.at ? Math.max(0, now - debt.at) : 0;
  if (looks) {
    debt.chars = Math.max(0, debt.chars - (passed / 60_000) * READ_PER_MIN);
    debt.upTo = end;
  }
  for (debt.upTo = Math.max(debt.upTo, model.logStart); debt.upTo < end; debt.upTo += 1) {
    const message = model.log[debt.upTo - model.logStart];
    if (message.origin === "agent") debt.chars += message.content.length;
  }
  if (debt.chars < 1) debt.chars = 0;
  if (debt.chars === 0) debt.since = null;
  else debt.since ??= now;
  debt.at = now;
  return debt;
}

/** The operator has caught up, by saying so. */
export function settleDebt(debt, model) {
  Object.assign(debt, { chars: 0, since: null, upTo: logEnd(model) });
}

export const minutesOf = (chars) => chars / READ_PER_MIN;
