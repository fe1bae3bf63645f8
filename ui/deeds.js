// Deeds: what the operator asked for, and what became of it. Pure: no DOM, no clock; time comes as an argument.
//
//   emptyDeeds()                     nothing asked yet
//   note(deeds, model, frame, now)   a frame was sent: a deed is "asked"
//   hear(deeds, model, frame, now)   the model has taken a frame: what was asked may be "effective" or "refused" now
//   lose(deeds, now)                 the line is cut: what was asked is "unknown", until a snapshot tells
//
// A deed is effective when the room shows it, never because a button was pressed. `list` is replaced when it changes.

import { GO_ON, loopOf } from "./model.js";
import { rowOfStage, RUNNING } from "./cast.js";

const DEEDS_MAX = 30;
const LATE_MS = 4_000; // the hub answers within milliseconds: beyond this something is wrong, and the page says so

const CLOCKS_S = 5; // if this browser's clock and the hub's differ by more, words that a cut line left unknown may stay so

export const emptyDeeds = () => ({ list: [], count: 0 });

// key of the frame -> what it is about, its words, whether the room shows it. `told` is for deeds that peers must hear of.
const ACTIONS = {
  pause: { word: "Pause", mode: "paused", effect: () => "the room is paused; what agents say waits" },
  resume: { word: "Resume", mode: "running", effect: () => "the room runs; what was held is delivered" },
  stop: { word: "Stop all", mode: "stopped", effect: (model) => `the room is stopped${heldBack(model)}`, reach: stopReach },
  reset: { word: "Reset", mode: "running", effect: () => "the room runs again" },
};

const KINDS = {
  action: (frame) => {
    const one = ACTIONS[frame.action] ?? { word: String(frame.action), mode: frame.action, effect: () => "done" };
    return { word: one.word, isDone: (model) => model.mode === one.mode, effect: one.effect, reach: one.reach };
  },
  set_rate: ({ set_rate: rate }) => ({
    word: `Rate ${rate.refill_rate}/s, burst ${rate.capacity}`,
    isDone: (model) => model.rate?.refill_rate === rate.refill_rate && model.rate?.capacity === rate.capacity,
    effect: () => "it holds for every peer",
  }),
  say: ({ say, to = "all", settles, reply_to }) => ({
    word: settles ? `Settle message ${settles}` : `${reply_to ? "Answer" : "Say"} to ${to === "all" ? "everyone" : listed([to].flat())}`,
    isHeard: (message) => message.kind === "message" && message.recipient === [to].flat().join(", ") && message.content === say,
    effect: (model, deed) => saidText(deed), reach: messageReach,
  }),
  quiet_stop: ({ quiet_stop: minutes }) => ({
    word: minutes ? `Stop after ${minutes} min of quiet` : "Never stop by itself", isDone: (model) => model.quietStop === minutes,
    effect: () => (minutes ? "counted from now on" : "quiet stops nobody"),
  }),
  rules: ({ rules }) => ({
    word: rules.trim() ? "House rules" : "No house rules", isDone: (model) => model.rules.text.trim() === rules.trim(),
    effect: (model) => `version ${model.rules.version}; each agent is told with its next batch`,
  }),
  rule: ({ rule: { lane, ruling } }, model) => ({
    word: `${RULINGS[ruling].word} ${scopeText(lane)}`, subject: lane, waited: loopOf(model, lane)?.waiting ?? 0,
    isDone: (now, deed) => isRuled(loopOf(now, lane), deed), effect: (now, deed) => RULINGS[ruling].effect + deliveredText(deed.waited),
  }),
  loops: ({ loops: { upto, release } }, model) => ({
    word: `Loops: ${upto}`, held: heldLanes(model), isDone: ({ loops }) => loops.upto === upto && loops.release === release,
    effect: (now, deed) => `${FAR[upto]}${release && upto === "hold" ? `; a held lane goes on after ${Math.round(release / 6) / 10} min of silence` : ""}${upto !== "hold" && deed.held ? "; what was held is delivered" : ""}`,
  }),
  budgets: ({ budgets }) => ({
    word: budgets.trim() ? "Budgets" : "No budgets", isAnswer: (frame) => frame.type === "budgets",
    effect: (model) => (model.budgets.text ? "they hold from now on" : "nobody is held by one any more"),
  }),
  raise_budget: ({ raise_budget: { spender, measure, to } }) => ({
    word: `Raise ${spender} to ${to.toLocaleString("en")} ${measure}`, isDone: (model) => rowOfBudget(model, spender, measure)?.limit === to,
    effect: (model) => (isHeldBy(model, spender) ? "it has spent another budget, too" : "it goes on; what waited is delivered"),
  }),
  end_spender: ({ end_spender: spender }) => ({
    word: `End ${spender}`, isDone: (model) => !isHeldBy(model, spender), effect: () => "its last words are delivered, and its seat is gone",
  }),
  kick: ({ kick: name }) => ({
    word: `Kick ${name}`, subject: name, isDone: (model) => !model.peers.some((peer) => peer.name === name),
    effect: () => "its seat is gone",
  }),
  ring: ({ ring: name }) => ({
    word: `Ring ${name}`, subject: name,
    isDone: (model, deed) => isRung(rowOf(model, name)?.wake, deed),
    effect: (model, deed) => ringText(rowOf(model, name)?.wake, deed), reach: (model, deed) => ringReach(rowOf(model, name)?.wake, name, deed),
  }),
  prompts: ({ prompts: { name, on } }) => ({
    word: `${on ? "Take" : "Leave"} prompts of ${name}`, subject: name, isDone: (model) => rowOf(model, name)?.prompts === on,
    effect: () => (on ? "its permission prompts come to you, where its host has the hook" : "its terminal answers them"),
  }),
  pause_peer: ({ pause_peer: name }) => ({
    word: `Pause ${name}`, subject: name, isDone: (model) => rowOf(model, name)?.paused === true, effect: () => "its mailbox is held",
  }),
  resume_peer: ({ resume_peer: name }) => ({
    word: `Resume ${name}`, subject: name, isDone: (model) => rowOf(model, name)?.paused === false, effect: () => "its mailbox is released",
  }),
  stage: ({ stage: verb, agent: name }, model) => ({
    word: `${{ start: "Start", end: "End", restart: "Restart" }[verb]} ${name}`, staged: name, from: { ...rowOfStage(model, name) },
    isDone: (now, { from }) => hasMoved(rowOfStage(now, name), from), effect: (now) => stagedText(rowOfStage(now, name)),
  }),
  close_channel: ({ close_channel: name }) => ({
    word: `Close ${name}`, isDone: (model) => !Object.hasOwn(model.channels, name), effect: () => "it has no members any more",
  }),
  floor: ({ floor: { scope = "all" } }) => ({
    word: `Clear the stick of ${scope === "all" ? "the whole room" : scope}`, isDone: (model) => !Object.hasOwn(model.floors, scope),
    effect: () => "everyone may speak there",
  }),
  answer: ({ answer: { id } }) => ({
    word: "Answer the form", form: id, isDone: (model) => statusOf(model, id) === "answered", effect: () => "the hub has it and tells who waits",
  }),
  cancel_form: ({ cancel_form: id }) => ({
    word: "Reject the form", form: id, isDone: (model) => statusOf(model, id) === "cancelled", effect: () => "the hub tells who waits",
  }),
  cancel_forms: ({ cancel_forms: name }) => ({
    word: `Reject all forms of ${name}`, subject: name, isDone: (model) => model.forms.every((form) => form.asker !== name), effect: () => "the hub tells who waits",
  }),
  command: ({ command, to }) => ({
    word: `${command === "reset" ? "Reset" : "Interrupt"} ${to}`, subject: to,
    isHeard: (message) => message.kind === "control" && message.recipient === to && message.content === command,
    effect: () => "it is in the mailbox, ahead of any pause", reach: messageReach,
  }),
  heartbeat: ({ heartbeat: name }) => ({ word: `Ping ${name}`, subject: name, isAnswer: (frame) => frame.type === "heartbeat_result" && frame.result?.peer === name,
    effect: () => "the hub answered" }),
};

// ruling -> its word, the state of a lane that shows it ("" when nothing is known of it any more), and what comes of it
const RULINGS = {
  continue: { word: "Continue", state: "watched", effect: `it goes on for ${GO_ON} messages` },
  close: { word: "Close the matter of", state: "closed", effect: "agents say nothing there any more" },
  run: { word: "Let run", state: "free", effect: "it is not held again" },
  watch: { word: "Watch again", state: "", effect: "it is watched as all others are" },
};
const FAR = { off: "nothing is looked for", hint: "who speaks there is told", slow: "such a lane is slowed", hold: "such a lane is held for you" };

const hasMoved = (row, from) => row !== undefined && (row.state !== from.state || row.since !== from.since);

function stagedText({ state, why }) {
  if (state === "failed") return why || "it has failed";
  return RUNNING.has(state) ? "it is being started" : "it is told to end, and killed if it does not within 5 s";
}

/** Whether a lane is as ruled; until then the deed counts what waits there, for that is what will be delivered. */
function isRuled(loop, deed) {
  if (loop?.state === "held") deed.waited = loop.waiting;
  return (loop?.state ?? "") === RULINGS[deed.frame.rule.ruling].state;
}

const deliveredText = (count) => (count ? `; ${count} that waited ${count === 1 ? "is" : "are"} delivered` : "");
const heldLanes = (model) => model.loops.lanes.filter(({ state }) => state === "held").length;
const scopeText = (scope) => (scope === "all" ? "everyone" : scope);

const isRung = (wake, deed) => hasWoken(wake, deed) || (wake?.open_ts ?? 0) * 1000 >= deed.at - CLOCKS_S * 1000;
const hasWoken = (wake, deed) => wake?.open_ts === null && wake.proven_ts !== null && wake.proven_ts * 1000 >= deed.at - CLOCKS_S * 1000;
const ringText = (wake, deed) => (hasWoken(wake, deed) ? `it woke in ${wake.latency} s` : "its waiter has it; no call has followed yet");
const ringReach = (wake, name, deed) => (hasWoken(wake, deed) ? { told: [name], untold: [] } : { told: [], untold: [name] });

const rowOfBudget = (model, spender, measure) => model.budgets.rows.find((row) => row.spender === spender && row.measure === measure);
const isHeldBy = (model, spender) => model.budgets.rows.some((row) => row.spender === spender && row.level === "spent" && (row.name === null || row.here || row.waiting > 0));
const rowOf = (model, name) => model.peers.find((peer) => peer.name === name);
const statusOf = (model, id) => model.settled.find((entry) => entry.id === id)?.status ?? null;
const commandOf = (frame) => ["heartbeat", ...Object.keys(KINDS)].find((key) => Object.hasOwn(frame, key)) ?? null;

/** Remember a frame that was sent. */
export function note(deeds, model, frame, now) {
  const command = commandOf(frame);
  if (command === null) return deeds;
  deeds.count += 1;
  const asked = { n: deeds.count, command, frame, at: now, state: "asked", settledAt: null, text: "", told: [], untold: [], messageId: null };
  const deed = { ...asked, ...KINDS[command](frame, model) };
  deeds.list = [deed, ...deeds.list].slice(0, DEEDS_MAX);
  return deeds;
}

/** Look what became of the deeds, after the model has taken `frame`. */
export function hear(deeds, model, frame, now) {
  if (frame?.type === "error") refuse(deeds, frame, now);
  let changed = false;
  for (const deed of deeds.list.toReversed()) changed = progress(deed, deeds, model, frame, now) || changed;
  if (changed) deeds.list = [...deeds.list];
  return deeds;
}

function progress(deed, deeds, model, frame, now) {
  if (deed.state === "asked" || (deed.state === "unknown" && isRetold(frame))) {
    if (!isEffective(deed, deeds, model, frame)) return false;
    Object.assign(deed, { state: "effective", settledAt: now });
    reach(deed, deeds, model);
    deed.text = deed.effect(model, deed);
    return true;
  }
  if (deed.state !== "effective" || !reach(deed, deeds, model)) return false;
  deed.text = deed.effect(model, deed);
  return true;
}

/** Whether a frame tells what happened while this page was away. */
const isRetold = (frame) => ["snapshot", "page", "said"].includes(frame?.type);

/** The messages of a frame that may be the deed's: the one that is live, or after a cut line those since it was asked. */
function candidates(frame, deed) {
  if (frame?.type === "message") return [frame.message];
  return isRetold(frame) ? (frame.log ?? []).filter((message) => message.ts >= deed.at / 1000 - CLOCKS_S) : [];
}

function isEffective(deed, deeds, model, frame) {
  if (deed.isAnswer) return deed.isAnswer(frame);
  if (frame?.type === "said" && frame.client_id === deed.frame.client_id) {
    deed.messageId = frame.id;
    return true;
  }
  if (!deed.isHeard) return !model.isOpening && deed.isDone(model, deed); // of half a roster nobody is missing yet
  const claimed = new Set(deeds.list.map((one) => one.messageId)); // said twice, it is heard twice
  const isIt = (message) => message.origin === "operator" && !claimed.has(message.id) && deed.isHeard(message);
  const message = candidates(frame, deed).find(isIt);
  if (!message) return false;
  deed.messageId = message.id;
  return true;
}

/** Take over who has it and who does not; true if that changed. */
function reach(deed, deeds, model) {
  const found = deed.reach?.(model, deed, deeds);
  if (!found) return false;
  const isSame = (a, b) => a.length === b.length && a.join("\n") === b.join("\n");
  if (isSame(found.told, deed.told) && isSame(found.untold, deed.untold)) return false;
  Object.assign(deed, { told: found.told, untold: found.untold });
  return true;
}

/** Who has the stop that stands, by the hub's rows; null when the room is not stopped or a later stop stands. */
export function stopReach(model, deed = null, deeds = null) {
  if (model.mode !== "stopped") return null;
  if (deed && deeds && deeds.list.find((one) => one.word === deed.word) !== deed) return null;
  const rows = model.peers.filter((peer) => typeof peer.stop_told === "boolean");
  if (rows.length === 0) return null;
  return { told: rows.filter((peer) => peer.stop_told).map((peer) => peer.name), untold: rows.filter((peer) => !peer.stop_told).map((peer) => peer.name) };
}

/** What hooks have held back in this stop: "; 2 tools held back", or nothing. */
export function heldBack(model) {
  const since = (model.modeAt ?? 0) / 1000 - CLOCKS_S;
  const held = model.peers.filter((peer) => peer.brake?.ts && peer.brake.ts >= since).map((peer) => peer.name);
  return held.length ? `; tools of ${listed(held)} held back` : "";
}

/** Who has fetched a message of the operator, by the hub's receipts; of many recipients it gives numbers only. */
function messageReach(model, deed) {
  const receipt = model.receipts?.get(deed.messageId);
  if (!receipt) return null;
  const untold = receipt.queued + receipt.lost;
  const told = receipt.fetched + receipt.acknowledged + receipt.answered;
  if (!receipt.who) return { told: Array(told).fill(""), untold: Array(untold).fill("") };
  const names = Object.keys(receipt.who);
  const has = (name) => !/^(queued|lost)/.test(receipt.who[name]);
  return { told: names.filter(has), untold: names.filter((name) => !has(name)) };
}

const saidText = (deed) => (deed.told.length + deed.untold.length ? "it is said" : "it is in the room");

const isSaidAs = (deed, frame) => frame.client_id !== undefined && deed.frame.client_id === frame.client_id && deed.state !== "effective";

/** The refusal of a command: of the newest deed of that kind that waits. The hub answers in order, but one kind rarely waits twice. */
function refuse(deeds, frame, now) {
  const waits = deeds.list.filter((deed) => (deed.state === "asked" || isSaidAs(deed, frame)) && deed.command === frame.command);
  const deed = waits.find((one) => isSaidAs(one, frame) || (frame.id !== undefined && one.form === frame.id) || (frame.lane !== undefined && one.subject === frame.lane)) ?? waits.at(-1);
  if (!deed) return;
  Object.assign(deed, { state: "refused", settledAt: now, text: typeof frame.detail === "string" && frame.detail ? frame.detail : String(frame.reason) });
  deeds.list = [...deeds.list];
}

/** The line is cut: whether the hub has got what was asked, nobody knows. */
export function lose(deeds, now) {
  const asked = deeds.list.filter((deed) => deed.state === "asked");
  if (asked.length === 0) return deeds;
  for (const deed of asked) Object.assign(deed, { state: "unknown", settledAt: now, text: `the line was cut before the hub confirmed it${deed.frame.client_id ? "; it goes again when the line is back" : ""}` });
  deeds.list = [...deeds.list];
  return deeds;
}

/** The deed of this command that still waits; for the control that was pressed. */
export const waiting = (deeds, command, subject = undefined) =>
  deeds.list.find((deed) => deed.state === "asked" && deed.command === command && (subject === undefined || deed.subject === subject)) ?? null;

export const isLate = (deed, now) => deed.state === "asked" && now - deed.at > LATE_MS;

const SHOWN_MS = 8_000; // how long a card tells what became of a deed on it

/** What a card tells of a deed: asked, late, or what became of it while that is new or not all is well; "" when it tells nothing. */
export function shownState(deed, now, isWell = deed?.state === "effective") {
  if (!deed || (deed.state !== "asked" && isWell && now - deed.settledAt >= SHOWN_MS)) return "";
  return isLate(deed, now) ? "late" : deed.state;
}

/** One line for the page: asked; in effect, for how many; or why not. */
export function wordsOf(deed, now) {
  if (deed.state === "asked") return isLate(deed, now) ? `asked ${Math.round((now - deed.at) / 1000)} s ago, not confirmed` : "asked…";
  if (deed.state === "refused") return `refused: ${deed.text}`;
  if (deed.state === "unknown") return deed.text;
  const all = deed.told.length + deed.untold.length;
  if (all === 0) return deed.text;
  const names = deed.untold.length && deed.untold[0] ? `, not yet ${listed(deed.untold)}` : "";
  return `${deed.told.length} of ${all} ${all === 1 ? "agent" : "agents"} reached${names}; ${deed.text}`;
}

const NAMES_MAX = 4;

/** "a, b and c", or the first few and how many more. */
export function listed(names, most = NAMES_MAX) {
  const shown = names.slice(0, most);
  if (names.length > most) return `${shown.join(", ")} and ${names.length - most} more`;
  return shown.length < 2 ? shown.join("") : `${shown.slice(0, -1).join(", ")} and ${shown.at(-1)}`;
}
