// Needs: what waits for the operator, each with its cause in words and the deed that helps; and the reading debt.
// Pure: no DOM, no clock; time comes as an argument.
//
//   owedOf(model)                     who owes whom: [{seq, id, asker, to, text, since, nudgedAt, acts: [{word, frame | go}]}], the oldest first
//   needsOf(model, now)               [{id, kind, text, since, help: {word, frame | go}, also?: another help, isQuiet?}], the most urgent first; for a quiet one nobody is called
//   actsOf(model, need)               one or two of {word, frame | go}
//   owe(debt, model, looks, now)      count what arrived since the operator last looked

import { ARROW, GO_ON, UNWOKEN_S, ageText, amount, isLosing, isOperator, lineOf, logEnd, many, passedSince, saidAs } from "./model.js";
import { listed, stopReach } from "./deeds.js";
import { DIED_TEXT, callsOf } from "./unsettled.js";
import { budgetNeeds, isSpent } from "./spent.js";
import { stageNeeds } from "./cast.js";

const DEAF_S = 60; // an agent between two polls is busy; longer, and nobody comes to fetch its mail
const NOBODY_S = 10; // longer than a waiter takes to ask again
const HEAP = 20; // messages in one mailbox: even a listening peer does not keep up
const FLOOD = 20; // refused sends: who heeds `retry_after` is refused once or twice
const SINGLY = 3; // peers that have gone silent, or do not fetch their mail, each a need; more are one
const STICK_S = 300; // a turn at the talking stick is a minute or two
const STOP_GRACE_S = 5; // a parked poll is answered at once; whoever lacks the stop then is not listening

/** Everything that waits, in order of urgency. A need keeps its id for as long as its cause lasts. */
export function needsOf(model, now) {
  return [
    ...stopNeeds(model, now), ...diedNeeds(model), ...budgetNeeds(model, now), ...floodNeeds(model), ...stageNeeds(model), ...heldNeeds(model), ...formNeeds(model),
    ...questionNeeds(model), ...lossNeeds(model, now), ...mentionNeeds(model), ...quietNeeds(model, now), ...silentNeeds(model, now),
    ...overdueNeeds(model, now), ...stickNeeds(model, now), ...stuckNeeds(model, now), ...slowNeeds(model),
  ];
}

/** A need in one sentence. */
export const wordsOf = (need) => `${need.who ? `${need.who} ` : ""}${need.verb ? `${need.verb}: ` : ""}${need.text}`;

const LOOKS = new Set(["form", "message", "loop", "roster", "budgets"]);

/** What may be done about it, the best first; for who only watches, the place where it is to be seen. */
export function actsOf(model, need) {
  const acts = [need.help, need.also].filter(Boolean);
  if (isOperator(model)) return acts;
  const go = need.at ?? acts.find((one) => LOOKS.has(one.go?.[0]))?.go;
  return go ? [{ word: "Show", go }] : [];
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
    help: { word: "Answer", go: debt.acts[0].go }, also: debt.acts[1], at: ["message", debt.id, debt.seq],
  }));
}

function overdueNeeds(model, now) {
  if (model.mode !== "running") return [];
  const isOverdue = ({ seq, ts, to }) => to !== "human" && now - Math.max(ts * 1000, nudgesOf(model).get(seq) ?? 0) >= OVERDUE_S * 1000;
  return model.owed.filter(isOverdue).map((debt) => debtOf(model, debt)).map((debt) => ({
    id: `owed:${model.room}:${debt.seq}`, kind: "owed", who: debt.asker === "human" ? null : debt.asker,
    text: `${debt.asker !== "human" ? "waits" : isOperator(model) ? "You wait" : "The operator waits"} for an answer of ${debt.to === "all" ? "anybody" : debt.to}: ${excerpt(debt.text)}`, since: debt.since,
    help: { word: "Nudge", frame: debt.acts[0].frame }, also: debt.acts[1],
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
    help: one ? kickHelp(one) : showThem(found.untold[0]), ...(one && { also: showHelp(one) }),
  }];
}

const kickHelp = (name) => ({ word: `Kick ${name}`, frame: { kick: name } });
const showThem = (name) => ({ word: "Show them", go: ["roster", name] });
const showHelp = (name) => ({ word: `Show ${name}`, go: ["roster", name] });

// ---- a room that is gone ----------------------------------------------------------------------------------------

const DIED_SHOWN = 3; // questions by their words; the rest are counted

/** A hub that started anew without a journal has forgotten what waited for the operator. */
function diedNeeds(model) {
  const { died } = model;
  if (!died) return [];
  const who = you(model);
  const named = died.open.slice(0, DIED_SHOWN).map(({ asker, text }) => `${asker}: “${text}”`);
  const more = died.count - named.length;
  return [{
    id: `restart:${died.room}`, kind: "restart", who: null, since: died.at, help: { word: "Tell everyone", frame: { say: DIED_TEXT, to: "all" } },
    text: `The hub started anew, and ${died.count === 1 ? `a question that waited for ${who} died` : `${died.count} questions that waited for ${who} died`} with the old room: ${named.join("; ")}${more > 0 ? `; and ${more} more` : ""}.`,
  }];
}

// ---- losses, floods, silence ------------------------------------------------------------------------------------

const hasPeer = (model, name) => model.peers.some((peer) => peer.name === name);
const ringOr = (peer) => (peer.wake?.kind === "waits" ? { word: `Ring ${peer.name}`, frame: { ring: peer.name } } : { word: `Ping ${peer.name}`, frame: { heartbeat: peer.name } });

/** What was lost stays lost: the need lasts until it is waved away, or the peer is gone. */
function lossNeeds(model, now) {
  return model.peers.filter((peer) => peer.lost).map((peer) => {
    const { count, since, ts, sender } = peer.lost;
    const isOn = isLosing(peer, now);
    const from = hasPeer(model, sender) && sender !== peer.name ? sender : null;
    const lost = many(count, "message");
    const pause = { word: `Pause ${from}`, frame: { pause_peer: from } };
    return {
      id: `loss:${model.room}:${peer.name}:${since}`, kind: "loss", who: peer.name, since: since * 1000, isQuiet: !isOn,
      text: `${isOn ? "loses what is said to it: its mailbox is full, and" : "has lost messages: its mailbox was full, and"} ${lost} gave way, the latest ${sender === "human" ? `of ${isOperator(model) ? "yours" : "the operator"}` : `from ${sender}`}, ${ageText(now / 1000 - ts)} ago.`,
      help: ringOr(peer), also: from && isOn ? pause : showHelp(peer.name),
    };
  });
}

function floodNeeds(model) {
  return model.peers.filter((peer) => peer.refused?.count >= FLOOD).map((peer) => ({
    id: `flood:${model.room}:${peer.name}`, kind: "flood", who: peer.name, since: null,
    text: `floods the room: ${amount(peer.refused.count)} of its last ${amount(peer.refused.of)} sends were refused for being too fast${peer.paused ? ", though it is paused" : ""}.`,
    help: peer.paused ? kickHelp(peer.name) : { word: `Pause ${peer.name}`, frame: { pause_peer: peer.name } },
    also: { word: `Interrupt ${peer.name}`, frame: { command: "interrupt", to: peer.name } },
  }));
}

/** Who is away, or has been quiet for long. In a room that has converged nobody has to say anything. */
function silentNeeds(model, now) {
  if (model.mode === "stopped") return []; // they were told to end
  const isDone = model.mode !== "running" || model.health?.quiet?.state === "converged";
  const silent = model.peers.filter((peer) => (peer.state === "reaped" || (peer.quiet && !isDone)) && !stuckOf(model, peer, now));
  if (silent.length <= SINGLY) return silent.map((peer) => silentNeed(peer, passedSince(model, peer, now), now));
  const away = silent.filter(({ state }) => state === "reaped").length;
  return [{
    id: `silent:${silent.map(({ name }) => name).join("\n")}`, kind: away ? "away" : "silent", who: null, since: null,
    text: `${listed(silent.map(({ name }) => name))} have gone silent${away ? `; ${away} of them ${away === 1 ? "is" : "are"} away` : ""}.`, help: showThem(silent[0].name),
  }];
}

function silentNeed(peer, passed, now) {
  const seconds = (peer.last_seen_age ?? 0) + passed;
  const about = { who: peer.name, since: now - seconds * 1000 };
  if (peer.state === "reaped") return { ...about, id: `away:${peer.name}`, kind: "away", text: `is away: it has not called for ${ageText(seconds)}.`, help: showHelp(peer.name), also: kickHelp(peer.name) };
  return { ...about, id: `silent:${peer.name}`, kind: "silent", text: `has gone silent: neither a call nor a status for ${ageText(seconds)}.`, help: ringOr(peer), also: { word: `Interrupt ${peer.name}`, frame: { command: "interrupt", to: peer.name } } };
}

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

/** Each is settled by an answer to it, or waved away: not by other words, and not by being one of many. */
function mentionNeeds(model) {
  return callsOf(model).map(({ id, seq, sender, recipient, content, ts, before }) => ({
    id: `mention:${model.room}:${id}`, kind: "mention", who: sender, verb: `writes to ${you(model)}`, since: ts * 1000,
    text: `${content}${before ? ` (and ${before} before it)` : ""}`,
    help: { word: "Show", go: ["message", id, seq] }, also: { word: "Answer", go: ["reply", saidAs(model, seq) ?? { seq, id, sender, recipient, content, origin: "agent" }] },
  }));
}

const EXCERPT = 140;
const excerpt = (text) => lineOf(text, EXCERPT);

// ---- peers that are deaf or stuck -------------------------------------------------------------------------------

function stuckNeeds(model, now) {
  const found = model.peers.map((peer) => stuckOf(model, peer, now)).filter(Boolean);
  if (found.length <= SINGLY) return found;
  const names = found.map(({ who }) => who), waiting = model.peers.filter(({ name }) => names.includes(name)).reduce((sum, peer) => sum + waitingOf(peer), 0);
  return [{
    id: `deaf:${names.join("\n")}`, kind: "deaf", who: null, since: Math.min(...found.map(({ since }) => since)),
    text: `${listed(names)} do not fetch their mail: ${amount(waiting)} messages wait for them.`, help: showThem(names[0]),
  }];
}

/** While the room or the peer is held, or stopped, that mail waits is what the operator wanted. */
function stuckOf(model, peer, now) {
  if (model.mode !== "running" || peer.paused || isSpent(model, peer.name) || waitingOf(peer) <= 0) return null;
  return stuckNeed(peer, passedSince(model, peer, now), now);
}

/** What it could fetch: not what waits in lanes that are held. */
const waitingOf = (peer) => (peer.waiting ?? 0) - (peer.held ?? 0);

function stuckNeed(peer, passed, now) {
  const waiting = waitingOf(peer);
  const unheard = (peer.deaf_age ?? peer.last_seen_age ?? 0) + passed;
  const mail = `${waiting} ${waiting === 1 ? "message waits" : "messages wait"} in its mailbox`;
  const unwoken = peer.wake?.open_ts ? now / 1000 - peer.wake.open_ts : 0;
  const need = (text) => ({ id: `deaf:${peer.name}`, kind: "deaf", who: peer.name, text, since: now - unheard * 1000, help: ringOr(peer), also: peer.state === "reaped" ? kickHelp(peer.name) : showHelp(peer.name) });
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
    since: floor.since * 1000, help: { word: "Clear the stick", frame: { floor: { action: "clear", scope: floor.scope } } }, also: showHelp(floor.holder),
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
