// What the console knows of the room. Pure: no DOM, no clock, no socket; time comes as an argument.
//
//   emptyModel()                 a console that has heard nothing yet
//   apply(model, frame, now)     take one frame of the hub; changes `model` and returns it
//   applyAll(model, frames)      take many, of which only the last state is looked at
//   applyLink(model, link)       take one status of the socket
//   noteSent(model, frame)       remember which form was answered, until the hub settles it or refuses
//   forgetBefore(model, index)   let the log begin at that entry
//   copyOf(model)                the model as it is now, for who wants to come back to this moment
//
// A part that changes is replaced (peers, channels, floors, forms, settled, refusals), so a panel skips its work by
// comparing references. Only what is in GROWING changes in place: entry i of the whole conversation is `log[i - logStart]`.

export const LOG_MAX = 20_000; // messages kept; above the 500 of the hub's snapshot, so a reconnect repeats none of them
const LOG_SLACK = 500; // cut in blocks: one splice per 500 messages, not one per message
const LOG_CHARS_MAX = 40_000_000; // a room that shouts 8,192 characters at a time must not fill the browser
const SETTLED_MAX = 50; // a short memory on screen; the hub keeps the ledger
const SPANS_MAX = 500;
const HISTORY_MS = 600_000; // of figures, for the charts
const NOTICES_MAX = 20;

const NO_STAGE = { off: null, agents: [] }; // off: null while nothing is known of it; else empty, or why there is none
const NO_LOOPS = { upto: null, release: 0, lanes: [] }; // release: s of the operator's silence, 0: never

export function emptyModel() {
  return {
    link: { state: "connecting", role: null, auth: false, since: 0 }, // role stays known while disconnected
    room: null, // which room it is, by the hub; null until the first snapshot
    mode: null, // running | paused | stopped; null until the first snapshot
    modeAt: null, // ms, when it last changed, if that is known
    peers: [],
    peersAt: 0, // when `peers` was heard, ms: its ages count from here, unless a row has a `heardAt` of its own
    isOpening: false, // a snapshot is here, and pages of it are still to come
    channels: {}, // name -> {topic, members, msg_count, char_count, last_ts}; the traffic counts on between the hub's frames
    floors: {},
    receipts: new Map(), // message id -> {id, seq, queued, fetched, acknowledged, answered, lost, who, at}; replaced when one changes
    fates: null, // {seq, who, more, at: name -> ms or null}: each recipient of one message to many, as the hub last said when asked
    died: null, // {room, open: [{id, asker, text}], count, at}: what waited for the operator in a room that is gone
    appeals: [], // words to the operator that he had not answered when the line opened: {seq, id, sender, text, ts}
    owed: [], // what expects an answer and has none, oldest first: {seq, asker, to, text, ts}
    rules: { text: "", version: 0 }, // of the house
    loops: NO_LOOPS, // how far loops are answered, and the lanes that go round in circles; a lane as the hub tells of it
    shares: { list: [], made: null }, // links for lookers-on: {id, by, ts, consoles}, and the one that was made here last: {id, token, url}
    budgets: { text: "", rows: [], more: 0 }, // what may be spent; rows: {spender, name, here, measure, limit, spent, level, unknown, back_ts, waiting}
    stage: NO_STAGE, // the agents that the hub may start; rows as cast.js reads them
    outputs: new Map(), // agent -> {lines, total, runs, cwd, rights}: what it wrote last, as the hub said when asked
    roots: new Map(), // message id -> its thread, for those in one: the id of what began it, or a name for what is not here
    threads: new Map(), // thread -> ids of its messages, oldest first
    spans: [], // what lasted: {kind: mode | pause | stick | form, key, who, scope, word, text, from, to}, ms; to: null while it lasts
    forms: [], // pending, oldest first
    settled: [], // newest first: {id, title, asker, to, status, answers: [[label, text]], summary, reason, askedAt, at}
    refusals: new Map(), // form id -> {field, text}: why the hub refused the last answer
    waiting: new Set(), // form ids answered or cancelled here, not yet settled by the hub
    health: null,
    history: [], // of health, oldest first: {at, msgs, chars, queue, mem}
    rate: null,
    quietStop: 0, // minutes without a word after which the room stops by itself; 0: never
    quietAfter: null, // s without a sign of life, then the hub calls a peer quiet
    version: null, // of the hub
    agents: [],
    log: [],
    logStart: 0,
    trees: new Map(), // message id -> its syntax tree; without one its text is shown as it is
    notices: [], // {n, tone, text, command, clientId}: for the toasts, in order
    noticeCount: 0,
    hues: new Map(), // every peer that was ever here -> its colour
    _indexes: new Map(), // message id -> its place in the conversation, for those in `log`
    _chars: 0, // of the messages in `log`
    lastSeq: 0, // of the newest message of this room, whether this page has it or not
    _ids: new Map(), // seq -> message id, for those in `log` that this room said
    _followedFrom: 0, // the hub keeps receipts up to date from this seq on
    _prunedTo: 0, // `logStart`, when receipts were looked through for those of messages that are gone
    _batch: null, // while many frames are taken at once: {receipts}, a map that nobody else has yet
    _recent: new Map(), // channel -> when its last messages were said, s; read by perMinute
    _liveFrom: Infinity, // messages from this place on were said before this page's eyes
    _isResumed: false, // the next receipts tell of what happened while nobody looked
    _heard: null, // the last live message: {ts, at}, s by the hub's clock and ms by the browser's
  };
}

const GROWING = ["log", "trees", "roots", "threads", "hues", "_indexes", "_ids", "_recent"]; // in place

/** The model as it is now, which goes its own way from here. */
export function copyOf(model) {
  const copy = { ...model };
  for (const part of GROWING) copy[part] = copyOfPart(model[part]);
  return copy;
}

function copyOfPart(part) {
  if (Array.isArray(part)) return [...part];
  if (part instanceof Set) return new Set(part);
  const copy = new Map(part);
  for (const [key, value] of copy) {
    if (!Array.isArray(value)) break; // of one map, all or none
    copy.set(key, [...value]);
  }
  return copy;
}

/** One past the last entry of the conversation. */
export const logEnd = (model) => model.logStart + model.log.length;

/** The place of a message in the whole conversation; -1 when this page does not have it. */
export const indexOf = (model, id) => model._indexes.get(id) ?? -1;

/** Entry `index` of the whole conversation. */
export const entryAt = (model, index) => model.log[index - model.logStart];

/** The message of this seq; undefined when this page does not have it. */
export const saidAs = (model, seq) => entryAt(model, indexOf(model, model._ids.get(seq)));

/** The thread that a message is in, or would begin. */
export const threadOf = (model, id) => model.roots.get(id) ?? id;

/** Take one frame of the hub. Unknown frames are ignored: a newer hub may send more. */
export function apply(model, frame, now = 0) {
  if (frame !== null && typeof frame === "object" && Object.hasOwn(FRAMES, frame.type)) FRAMES[frame.type](model, frame, now);
  return model;
}

/** Take many frames, [ms, frame], as one: in between nobody looks. */
export function applyAll(model, frames) {
  model._batch = {};
  for (const [ms, frame] of frames) apply(model, frame, ms);
  model._batch = null;
  return model;
}

const FRAMES = {
  snapshot: takeSnapshot,
  message: takeLive,
  page: takePage,
  peers: (model, frame, now) => (frame.changed ? changePeers(model, frame, now) : takePeers(model, frame.peers, now)),
  channels: (model, frame) => (frame.changed ? changeChannels(model, frame) : void (model.channels = frame.channels ?? {})),
  receipts: takeReceipts,
  receipt: takeFates,
  owed: (model, frame) => { model.owed = frame.owed ?? []; },
  rules: (model, { text, version }) => { model.rules = { text, version }; },
  loops: takeLoops,
  loop: takeLoop,
  quiet_stop: (model, frame) => { model.quietStop = frame.minutes; },
  budgets: (model, { text, rows, more }) => { model.budgets = { text, rows, more }; },
  mode: (model, frame, now) => { model.mode = frame.mode; model.modeAt = now; },
  floor: (model, frame, now) => takeFloors(model, frame.floors, now),
  form: takeForm,
  form_resolved: (model, frame, now) => settle(model, { ...frame, at: momentOf(model, now) }),
  health: takeHealth,
  heartbeat_result: (model, frame) => notice(model, "info", heartbeatText(frame.result)),
  stage: takeStage,
  output: (model, frame) => { model.outputs = new Map(model.outputs).set(frame.agent, frame); },
  rate: (model, frame) => { model.rate = frame.rate; },
  shares: (model, frame) => { model.shares = { list: frame.shares ?? [], made: frame.made ?? model.shares.made }; },
  agents: (model, frame) => { model.agents = frame.agents ?? []; },
  error: takeRefusal,
};

/** Take the socket's status. Whether an answer has arrived is unknown once the line is cut; which room is behind a new one, until its snapshot. */
export function applyLink(model, link) {
  model.link = { ...link, role: link.role ?? model.link.role, auth: link.auth ?? model.link.auth };
  if (link.state !== "open" && model.waiting.size) model.waiting = new Set();
  return model;
}

/** Remember a sent frame until the hub confirms or refuses it. */
export function noteSent(model, frame) {
  const formId = frame.answer?.id ?? frame.cancel_form;
  if (formId) {
    model.waiting = new Set(model.waiting).add(formId);
    model.refusals = without(model.refusals, formId);
  }
  return model;
}

/** Whether one may act: there is a line, and its snapshot has told of which room. */
export const isOpen = (model) => model.link.state === "open" && model.link.isTold === true;
export const isOperator = (model) => model.link.role === "operator";

// ---- the log ----------------------------------------------------------------------------------------------------

/** Note the stage; `at` is its `since` by the clock of this browser, which may be another than the hub's. */
function takeStage(model, { off, agents, ts = null }, now) {
  const ahead = ts === null ? 0 : now / 1000 - ts; // s
  model.stage = { off, agents: agents.map((row) => ({ ...row, at: row.since + ahead })) };
}

function takeSnapshot(model, frame, now) {
  const log = frame.log ?? [];
  if (model.mode !== null && model.room !== frame.room) beginRoom(model, now);
  else if (model.log.length && log.length && !log.some((message) => model._indexes.has(message.id))) {
    marker(model, "Messages are missing here: more were said while this page was away than the hub tells of at once.", now, true);
  }
  model.room = frame.room;
  model.lastSeq = frame.last_seq ?? 0;
  model.link = { ...model.link, isTold: true };
  Object.assign(model, { _isResumed: true, _liveFrom: Infinity });
  model.isOpening = Boolean(frame.more);
  model.mode = frame.mode;
  model.channels = frame.channels ?? {};
  model.forms = [...(frame.forms ?? [])].sort((a, b) => a.ts - b.ts);
  model.waiting = new Set();
  model.rate = frame.rate ?? model.rate;
  model.quietAfter = frame.quiet_after ?? null;
  model.quietStop = frame.quiet_stop ?? 0;
  model.version = frame.version ?? null;
  model.agents = frame.agents ?? [];
  model.owed = frame.owed ?? [];
  model.appeals = frame.appeals ?? [];
  model.rules = frame.rules ?? model.rules;
  takeLoops(model, frame.loops ?? NO_LOOPS, now);
  model.budgets = frame.budgets ?? model.budgets;
  model.outputs = new Map();
  takeStage(model, frame.stage ?? NO_STAGE, now);
  for (const peer of frame.peers ?? []) claimHue(model, peer.name);
  for (const message of log) takeMessage(model, message, frame.trees?.[message.id], now);
  takeHealth(model, { health: frame.health ?? null, peers: frame.peers }, now);
  takeLedger(model, frame.decisions ?? []);
  mendSpans(model, frame, now);
  if (!model.isOpening) model._liveFrom = logEnd(model);
}

/** More of a snapshot: rows, channels, and what was said after what came so far; the last page is empty. */
function takePage(model, frame, now) {
  for (const message of frame.log ?? []) takeMessage(model, message, frame.trees?.[message.id], now);
  if (frame.peers) changePeers(model, { changed: frame.peers }, now);
  if (frame.channels) changeChannels(model, { changed: frame.channels });
  if (!frame.last) return;
  model.isOpening = false;
  model._liveFrom = logEnd(model);
  endPauses(model, now);
}

/** The moment by the hub's clock, ms: the browser's may be minutes off. */
export function momentOf(model, now) {
  return model._heard === null ? now : model._heard.ts * 1000 + (now - model._heard.at);
}

/** A message said now: its channel's traffic goes on from what the hub counted. */
function takeLive(model, { message, tree }, now) {
  if (message) model._heard = { ts: message.ts, at: now };
  if (!takeMessage(model, message, tree, now) || !Object.hasOwn(model.channels, message.recipient)) return;
  const { msg_count: count = 0, char_count: chars = 0, ...channel } = model.channels[message.recipient];
  const heard = { ...channel, msg_count: count + 1, char_count: chars + [...message.content].length, last_ts: message.ts };
  model.channels = { ...model.channels, [message.recipient]: heard };
}

/** Take one message; false if it is known: live before the snapshot, or said before a reconnect. */
function takeMessage(model, message, tree, now) {
  if (!message || model._indexes.has(message.id)) return false;
  if (tree) model.trees.set(message.id, tree);
  append(model, message);
  if (message.origin === "agent") claimHue(model, message.sender);
  if (message.origin === "hub" && message.seq === 0) readNotice(model, message);
  if (message.meta?.form_id) settle(model, { ...message.meta, id: message.meta.form_id, at: message.ts * 1000 });
  if (String(message.recipient).startsWith("#")) {
    if (!model._recent.has(message.recipient)) model._recent.set(message.recipient, []);
    model._recent.get(message.recipient).push(message.ts);
  }
  return true;
}

/** How many messages a channel had in the last minute. */
export function perMinute(model, channel, now) {
  const recent = model._recent.get(channel) ?? [];
  const old = recent.findIndex((ts) => ts > now / 1000 - 60);
  recent.splice(0, old < 0 ? recent.length : old);
  return recent.length;
}

/** Another room: its seqs begin anew, so those of the old one lead nowhere. */
function beginRoom(model, now) {
  if (model.log.length) marker(model, "The hub started anew: this is a new room. What is above was said before.", now);
  Object.assign(model, { _ids: new Map(), _followedFrom: 0, receipts: new Map(), fates: null });
}

/** A line of the console itself, where the conversation is not whole. */
function marker(model, text, now, isHole = false) {
  append(model, { id: `marker-${logEnd(model)}`, kind: "marker", content: text, ts: now / 1000, seq: 0, origin: "console", isHole });
}

function append(model, message) {
  model._indexes.set(message.id, logEnd(model));
  model.log.push(message);
  if (message.seq > 0) model._ids.set(message.seq, message.id);
  if (message.seq > model.lastSeq) model.lastSeq = message.seq;
  if (message.reply_to) join(model, message);
  model._chars += message.content.length;
  if (model.log.length < LOG_MAX + LOG_SLACK && model._chars < LOG_CHARS_MAX) return;
  forgetBefore(model, model.logStart + Math.max(LOG_SLACK, model.log.length - LOG_MAX));
}

/** Forget what was said before entry `index` of the conversation. */
export function forgetBefore(model, index) {
  const cut = model.log.splice(0, index - model.logStart);
  for (const old of cut) {
    model._indexes.delete(old.id);
    model.trees.delete(old.id);
    model._chars -= old.content.length;
    if (model._ids.get(old.seq) === old.id) model._ids.delete(old.seq);
    leave(model, old.id);
  }
  model.logStart += cut.length;
}

/** Enter an answer into the thread of what it answers. */
function join(model, message) {
  const answered = model._ids.get(message.reply_to);
  const thread = answered === undefined ? `${model.room}:${message.reply_to}` : threadOf(model, answered);
  if (!model.threads.has(thread)) model.threads.set(thread, answered === undefined ? [] : [answered]);
  model.threads.get(thread).push(message.id);
  for (const id of [answered, message.id]) if (id !== undefined) model.roots.set(id, thread);
}

function leave(model, id) {
  const thread = model.roots.get(id);
  if (!model.roots.delete(id)) return;
  const rest = model.threads.get(thread).filter((other) => other !== id);
  if (rest.length) model.threads.set(thread, rest);
  else model.threads.delete(thread);
}

/** Whether a message for `recipient` is for a peer, alone or as one of several. */
export const isNamedIn = (recipient, name) => recipient === name || recipient.split(", ").includes(name);

/** Who may hear a message: "notice" (the console only), "broadcast", "channel" or "direct". */
export function audienceOf(message) {
  if (message.origin === "hub" && message.kind === "system" && !(message.seq > 0)) return "notice";
  if (message.recipient === "all") return "broadcast";
  return String(message.recipient).startsWith("#") ? "channel" : "direct";
}

/** Whether a peer speaks to the operator alone: `human` has no mailbox, but this console. */
export const isToOperator = (message) => message.recipient === "human" && message.origin === "agent";

// ---- peers and health -------------------------------------------------------------------------------------------

function takePeers(model, peers, now) {
  model.peers = peers ?? [];
  model.peersAt = now;
  greet(model, model.peers, now);
  if (!model.isOpening) endPauses(model, now);
}

/** Take rows that changed, and names that went; all other rows stay as they are, and so do the moments they tell of. */
function changePeers(model, { changed, gone = [] }, now) {
  const rows = new Map(model.peers.map((peer) => [peer.name, peer]));
  for (const name of gone) rows.delete(name);
  for (const peer of changed) rows.set(peer.name, { ...peer, heardAt: now });
  model.peers = [...rows.values()].sort((a, b) => (a.state !== "live") - (b.state !== "live") || inOrder(a.name, b.name));
  greet(model, changed, now);
  if (!model.isOpening) endPauses(model, now);
}

function changeChannels(model, { changed, gone = [] }) {
  const channels = { ...model.channels, ...changed };
  for (const name of gone) delete channels[name];
  model.channels = Object.fromEntries(Object.entries(channels).sort(([a], [b]) => inOrder(a, b)));
}

export const UNWOKEN_S = 180; // a wake that no call has followed for so long has failed: the hub takes no later one for proof

const MAILBOX_MAX = 1000; // as the hub has it
const LOSING_S = 60; // after its latest loss

/** Whether what is said to a peer is lost, now or a moment ago. */
export const isLosing = (peer, now) => Boolean(peer.lost) && ((peer.waiting ?? 0) + (peer.unacknowledged ?? 0) >= MAILBOX_MAX || now / 1000 - peer.lost.ts < LOSING_S);

/** Seconds since a row was heard: its ages have grown by so much. */
export const passedSince = (model, peer, now) => Math.max(0, (now - (peer.heardAt ?? model.peersAt ?? now)) / 1000);

const placeOf = (unit) => (unit >= 0xe000 ? unit - 0x800 : unit >= 0xd800 ? unit + 0x2000 : unit);

/** Compare as the hub does: by code points, where JavaScript goes by their halves. */
export function inOrder(a, b) {
  const length = Math.min(a.length, b.length);
  for (let at = 0; at < length; at += 1) {
    const [x, y] = [a.charCodeAt(at), b.charCodeAt(at)];
    if (x !== y) return placeOf(x) - placeOf(y);
  }
  return a.length - b.length;
}

function greet(model, peers, now) {
  for (const peer of peers) {
    claimHue(model, peer.name);
    if (peer.paused) beginPause(model, peer.name, now);
  }
}

function endPauses(model, now) {
  const paused = new Set(model.peers.filter((peer) => peer.paused).map((peer) => peer.name));
  endSpans(model, "pause", ({ who }) => paused.has(who), now);
}

/** Take receipts that changed. What is too old for the hub to follow, and could have gone on, is not known any more. */
function takeReceipts(model, { changed = [], since = 0 }, now) {
  const receipts = model._batch?.receipts === model.receipts ? model.receipts : new Map(model.receipts);
  for (const one of changed) receipts.set(one.id, { ...one, at: momentsOf(model, receipts.get(one.id), one, now) });
  const from = model._followedFrom;
  if (since !== from) {
    const isBit = since > from && since - from < receipts.size && model.logStart === model._prunedTo; // else all are looked at
    const olds = isBit ? Array.from({ length: since - from }, (_, step) => receipts.get(model._ids.get(from + step))).filter(Boolean) : receipts.values();
    for (const { id, seq, queued, fetched } of olds) if (!model._indexes.has(id) || (seq < since && queued + fetched > 0)) receipts.delete(id);
    model._prunedTo = model.logStart;
  }
  model._followedFrom = since;
  model._isResumed = false;
  model.receipts = receipts;
  if (model._batch) model._batch.receipts = receipts;
}

/** When each recipient came to where it is, as far as this page has seen it: name -> ms or null. */
function momentsOf(model, before, { id, who }, now) {
  const sees = indexOf(model, id) >= model._liveFrom || (before !== undefined && !model._isResumed);
  return new Map(Object.entries(who ?? {}).map(([name, state]) => [name, before?.who?.[name] === state ? before.at.get(name) : sees ? now : null]));
}

/** Take each recipient of one message to many, as asked for: what moved between two answers, moved now. */
function takeFates(model, { seq, who, more }, now) {
  const before = model.fates?.seq === seq ? model.fates : null;
  const at = new Map(Object.entries(who).map(([name, state]) => [name, before?.who[name] === state ? before.at.get(name) : before?.who[name] ? now : null]));
  model.fates = { seq, who, more, at };
}

function takeHealth(model, frame, now) {
  model.health = frame.health;
  if (frame.peers) takePeers(model, frame.peers, now);
  if (!frame.health) return;
  const { msg_per_min: msgs, char_per_min: chars = null, queue_depth: queue, mem_rss_mb: mem = null } = frame.health;
  model.history = [...model.history.filter(({ at }) => at > now - HISTORY_MS), { at: now, msgs, chars, queue, mem }];
}

function takeFloors(model, floors, now) {
  model.floors = floors ?? {};
  endSpans(model, "stick", ({ scope, who }) => model.floors[scope]?.holder === who, momentOf(model, now));
  for (const { scope, holder, reason, since } of Object.values(model.floors)) {
    beginSpan(model, { kind: "stick", key: `stick:${scope}:${holder}`, who: holder, scope, word: "talking stick", text: reason ?? "", from: since * 1000 });
  }
}

// ---- lanes that go round in circles -----------------------------------------------------------------------------

export const ARROW = " ↔ "; // between two names; no name has it
export const GO_ON = 20; // messages that the operator lets a lane that was held go on for

/** The lane that a message was said in; "" for words to the operator, and for what is no agent's. */
export function laneOf({ origin, sender, recipient }) {
  if (origin !== "agent" || recipient === "human") return "";
  if (recipient === "all" || recipient.startsWith("#")) return recipient;
  return [sender, recipient].sort(inOrder).join(ARROW);
}

/** What is known of a lane that goes round in circles, or went so; undefined for all others. */
export const loopOf = (model, lane) => model.loops.lanes.find((loop) => loop.lane === lane);

/** Whether a message waits for the operator's ruling on its lane. */
export function isHeld(model, message) {
  if (model.loops.lanes.length === 0 || !message) return false;
  const loop = loopOf(model, laneOf(message));
  return loop?.state === "held" && loop.waiting > 0 && message.seq >= loop.waits_from;
}

function takeLoops(model, { upto, release, lanes }, now) {
  model.loops = { upto, release, lanes };
  markLoops(model, now);
}

function takeLoop(model, { lane, loop }, now) {
  const { lanes } = model.loops;
  const known = lanes.findIndex((one) => one.lane === lane);
  const rest = loop === null ? lanes.filter((one) => one.lane !== lane) : known < 0 ? [...lanes, loop] : lanes.with(known, loop);
  model.loops = { ...model.loops, lanes: rest };
  markLoops(model, now);
}

/** What the picture shows of it: since when a lane is slowed, held, or closed. */
function markLoops(model, now) {
  const drawn = model.loops.lanes.map((loop) => [loop, markOf(loop)]).filter(([, word]) => word !== "");
  const keys = new Set(drawn.map(([{ lane }, word]) => `loop:${word}:${lane}`));
  endSpans(model, "loop", ({ key }) => keys.has(key), momentOf(model, now));
  for (const [{ lane, ts, words }, word] of drawn) beginSpan(model, { kind: "loop", key: `loop:${word}:${lane}`, scope: lane, word, text: words, from: ts * 1000 });
}

const markOf = ({ state, level }) => (state === "held" || state === "closed" ? state : state === "watched" && level === "slow" ? "slowed" : "");

// ---- what lasted: for the picture -------------------------------------------------------------------------------

function beginSpan(model, span) {
  if (model.spans.some((known) => known.key === span.key && known.to === null)) return;
  const full = { who: null, scope: null, text: "", to: null, ...span };
  const kept = model.spans.length < SPANS_MAX ? model.spans : model.spans.filter((known, index) => known.to === null || index >= SPANS_MAX / 5);
  model.spans = [...kept, full];
}

function endSpan(model, key, at) {
  model.spans = model.spans.map((span) => (span.key === key && span.to === null ? { ...span, to: Math.max(at, span.from) } : span));
}

/** End what lasts of a kind, but for what goes on. */
function endSpans(model, kind, goesOn, at) {
  for (const span of model.spans) if (span.kind === kind && span.to === null && !goesOn(span)) endSpan(model, span.key, at);
}

// The hub's own notices, seq 0, that begin or end something. Only the hub writes them, and each is matched whole: what a
// topic or a title puts into a notice can at most name a peer that does not exist.
const NOTICES = [
  [/^control: (paused|stopped)$/, (model, [, mode], at) => { endSpan(model, "mode", at); beginMode(model, mode, at); }],
  [/^control: running$/, (model, _, at) => { endSpan(model, "mode", at); model.modeAt = at; }],
  [/^(.+) paused by the operator$/s, (model, [, name], at) => beginPause(model, name, at)],
  [/^(.+) resumed by the operator$/s, (model, [, name], at) => endSpan(model, `pause:${name}`, at)],
];

function readNotice(model, message) {
  for (const [pattern, happens] of NOTICES) {
    const found = pattern.exec(message.content);
    if (found) return happens(model, found, message.ts * 1000);
  }
  return undefined;
}

function beginMode(model, mode, at) {
  model.modeAt = at;
  beginSpan(model, { kind: "mode", key: "mode", word: mode, from: at });
}

function beginPause(model, name, at) {
  if (model.hues.has(name)) beginSpan(model, { kind: "pause", key: `pause:${name}`, who: name, word: "paused", from: at });
}

/** After a snapshot: what lasts now, and what ended while nobody looked. */
function mendSpans(model, frame, now) {
  const open = model.spans.find((span) => span.key === "mode" && span.to === null);
  if (open && open.word !== frame.mode) endSpan(model, "mode", now);
  if (frame.mode !== "running" && frame.mode && open?.word !== frame.mode) beginMode(model, frame.mode, open ? now : model.modeAt ?? now);
  takeFloors(model, frame.floors, now);
  for (const form of model.forms) beginForm(model, form);
  const pending = new Set(model.forms.map((form) => `form:${form.id}`));
  endSpans(model, "form", ({ key }) => pending.has(key), now);
}

function beginForm(model, form) {
  beginSpan(model, { kind: "form", key: `form:${form.id}`, who: form.asker, scope: form.to, word: "asks the operator", text: form.title, from: form.ts * 1000 });
}

function heartbeatText(result = {}) {
  if (!result.present && result.state !== "reaped") return `${result.peer} is not in the room.`;
  const ears = result.listening ? "listening" : "not listening";
  return `${result.peer} is ${stateWord(result.state)}, ${ears}, last heard ${ageText(result.last_seen_age)} ago.`;
}

/** The operator's word for a peer's state: a reaped peer may still come back. */
export const stateWord = (state) => (state === "reaped" ? "away" : state);

// ---- forms ------------------------------------------------------------------------------------------------------

function takeForm(model, frame) {
  model.forms = [...model.forms.filter((form) => form.id !== frame.form.id), frame.form];
  beginForm(model, frame.form);
}

/** Move a form to the settled list. The answer message and `form_resolved` both tell of it, in either order. */
function settle(model, { id, status, answers, title, asker, to, reason, at }) {
  const form = model.forms.find((pending) => pending.id === id);
  if (form) model.forms = model.forms.filter((pending) => pending.id !== id);
  model.waiting = without(model.waiting, id);
  model.refusals = without(model.refusals, id);
  endSpan(model, `form:${id}`, at);
  if (model.settled.some((known) => known.id === id)) return;
  const entry = {
    id, status, title: form?.title ?? title ?? "A form", asker: form?.asker ?? asker ?? "", to: form?.to ?? to ?? "all",
    answers: readable(form, answers), summary: "", reason: reason ?? null, askedAt: form ? form.ts * 1000 : null, at,
  };
  model.settled = [entry, ...model.settled].slice(0, SETTLED_MAX);
}

/** The hub's ledger: what was settled before this page opened, and what this page did not know of the rest. */
function takeLedger(model, decisions) {
  for (const one of decisions.slice(-SETTLED_MAX)) {
    const id = one.id ?? `${one.ts}:${one.title}`;
    const askedAt = one.asked_ts === undefined ? null : one.asked_ts * 1000;
    const known = model.settled.find((entry) => entry.id === id);
    const entry = {
      id, status: one.status, title: one.title, asker: one.asker, to: one.to ?? "all", answers: known?.answers ?? [],
      summary: one.answer_summary, reason: one.reason ?? null, askedAt, at: one.ts * 1000,
    };
    model.settled = [...model.settled.filter((other) => other !== known), entry];
    const isDrawn = model.spans.some((span) => span.key === `form:${id}`);
    if (!isDrawn && one.asked_ts !== undefined) beginForm(model, { ...entry, ts: one.asked_ts });
    endSpan(model, `form:${id}`, entry.at);
  }
  model.settled = [...model.settled].sort((a, b) => b.at - a.at).slice(0, SETTLED_MAX);
}

/** Answers as pairs of label and text. */
function readable(form, answers) {
  const labels = new Map((form?.fields ?? []).map((field) => [field.key, field.label]));
  return Object.entries(answers ?? {}).map(([key, value]) => [labels.get(key) ?? key, [value].flat().join(", ")]);
}

/** The same Map or Set, or one that lacks the key. */
function without(keys, key) {
  if (!keys.has(key)) return keys;
  const copy = new keys.constructor(keys);
  copy.delete(key);
  return copy;
}

// ---- refusals and notices ---------------------------------------------------------------------------------------

function takeRefusal(model, frame) {
  const why = reasonText(frame);
  const text = frame.command && !isForbidden(frame) ? `Refused (${frame.command}): ${why}` : why;
  const id = formOf(model, frame);
  if (id === null) return notice(model, "refused", text, frame.command, frame.client_id);
  model.waiting = without(model.waiting, id);
  if (!model.forms.some((form) => form.id === id)) return notice(model, "refused", text, frame.command);
  model.refusals = new Map(model.refusals).set(id, { field: frame.field ?? null, text: why });
}

/** The form that a refusal speaks of: named by the hub, or the only one that waits. */
function formOf(model, frame) {
  if (frame.command !== "answer" && frame.command !== "cancel_form") return null;
  return frame.id ?? frame.form_id ?? [...model.waiting].at(-1) ?? null;
}

const isForbidden = (frame) => frame.reason === "forbidden";

function reasonText(frame) {
  if (typeof frame.detail === "string" && frame.detail) return frame.detail;
  return isForbidden(frame) ? "You are observing: only the operator may do that." : `The hub refused: ${frame.reason}.`;
}

function notice(model, tone, text, command = null, clientId = null) {
  model.noticeCount += 1;
  model.notices = [...model.notices, { n: model.noticeCount, tone, text, command, clientId }].slice(-NOTICES_MAX);
}

// ---- words and colours ------------------------------------------------------------------------------------------

const INVISIBLE = /[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g; // they turn or hide words; the message itself names them

/** The first `max` characters of a text as one line, without what turns or hides words. */
export function lineOf(text, max) {
  const line = String(text).slice(0, max * 8).replace(INVISIBLE, "").replace(/\s+/g, " ").trim();
  return line.length > max ? `${line.slice(0, max - 1)}…` : line;
}

/** A text in lower case, letter for letter, so that places agree: one letter alone would become two. */
export const lowerOf = (text) => text.replaceAll("\u0130", "i").toLowerCase();

/** A number, as the hub's own words have it. */
export const amount = (value) => Number(value ?? 0).toLocaleString("en");

/** "1 message", "2,000 messages". */
export const many = (count, word) => `${amount(count)} ${word}${count === 1 ? "" : "s"}`;

/** A duration in at most two units: "4 s", "3 min", "2 h 5 min". */
export function ageText(seconds) {
  const s = Math.max(0, Math.round(seconds ?? 0));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return pair(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "min");
  return pair(Math.floor(s / 86400), "d", Math.floor((s % 86400) / 3600), "h");
}

const pair = (big, bigUnit, small, smallUnit) => `${big} ${bigUnit}${small ? ` ${small} ${smallUnit}` : ""}`;

/** What the models of these peers have cost together, as far as they say; null when none does. */
export function usageOf(peers) {
  const told = peers.filter((peer) => peer.usage).map((peer) => peer.usage);
  if (!told.length) return null;
  const sum = (key) => told.reduce((total, one) => total + one[key], 0);
  const priced = told.filter((one) => one.cost_usd !== null);
  const cost = priced.length ? priced.reduce((total, one) => total + one.cost_usd, 0) : null;
  return { turns: sum("turns"), input_tokens: sum("input_tokens"), output_tokens: sum("output_tokens"), cost_usd: cost,
    peers: told.length, unpriced: told.length - priced.length };
}

/** At a glance: "12 turns · 48k tokens · $0.31". */
export function usageText(usage) {
  const tokens = `${shortly(usage.input_tokens + usage.output_tokens)} tokens`;
  return [turnsText(usage), tokens, dollars(usage.cost_usd)].filter(Boolean).join(" · ");
}

/** To the token. */
export function usageExactly(usage) {
  const tokens = `${exactly(usage.input_tokens)} input and ${exactly(usage.output_tokens)} output tokens`;
  const cost = usage.cost_usd === null ? "no known price" : `$${exactly(usage.cost_usd)}`;
  return `${turnsText(usage)}, ${tokens}, ${cost}`;
}

/** Of the whole room: "$1.27, 96 turns". */
export const costText = (usage) => [dollars(usage.cost_usd), turnsText(usage)].filter(Boolean).join(", ");

/** In one word: what it cost, or its tokens where nobody knows a price. */
export const priceText = (usage) => dollars(usage.cost_usd) || `${shortly(usage.input_tokens + usage.output_tokens)} tok`;

const exactly = (value) => value.toLocaleString("en", { maximumFractionDigits: 6 });
const turnsText = ({ turns }) => `${exactly(turns)} ${turns === 1 ? "turn" : "turns"}`;

function dollars(cost) {
  if (cost === null) return "";
  if (cost > 0 && cost < 0.005) return "under $0.01"; // it would round to nothing
  return `$${cost.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
}

/** "950", "4.8k", "48k", "1.2M". */
const shortly = (value) => value.toLocaleString("en", { notation: "compact" }).replace("K", "k");

/** The colour of a peer's name, 0 to 719: its hue, and from 360 on in a deeper tone. Of the name alone, so that it is the same on every console, today and tomorrow. */
export const hueOf = (model, name) => model.hues.get(name) ?? ownHue(name);

function claimHue(model, name) {
  if (!model.hues.has(name)) model.hues.set(name, ownHue(name));
}

/** FNV-1a, then murmur's last mix: names are short and differ in a letter. */
function ownHue(name) {
  let hash = 0x811c9dc5;
  for (const char of String(name)) hash = Math.imul(hash ^ char.codePointAt(0), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return ((hash ^ (hash >>> 16)) >>> 0) % 720;
}
