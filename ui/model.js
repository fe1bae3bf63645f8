// What the console knows of the room. Pure: no DOM, no clock, no socket; time comes as an argument.
//
//   emptyModel()                 a console that has heard nothing yet
//   apply(model, frame, now)     take one frame of the hub; changes `model` and returns it
//   applyLink(model, link)       take one status of the socket
//   noteSent(model, frame)       remember what the operator asked for, until the hub confirms or refuses it
//
// A part that changes is replaced (peers, channels, floors, forms, settled, refusals), so a panel skips its work by
// comparing references. Only `log` grows in place: entry i of the whole conversation is `log[i - logStart]`.

export const LOG_MAX = 5000; // messages kept; above the 500 of the hub's snapshot, so a reconnect repeats none of them
const LOG_SLACK = 500; // cut in blocks: one splice per 500 messages, not one per message
const SETTLED_MAX = 12; // a short memory on screen; the hub keeps the ledger
const NOTICES_MAX = 20;
const RESTART_SLACK_S = 5; // hub start times, computed from two uptimes, agree within this

export function emptyModel() {
  return {
    link: { state: "connecting", role: null, auth: false, since: 0 }, // role stays known while disconnected
    mode: null, // running | paused | stopped; null until the first snapshot
    asked: null, // a mode action sent and not yet confirmed
    peers: [],
    peersAt: 0, // when `peers` was heard, ms: its ages count from here
    channels: {},
    floors: {},
    forms: [], // pending, oldest first
    settled: [], // newest first: {id, title, asker, status, answers: [[label, text]], at}
    refusals: new Map(), // form id -> {field, text}: why the hub refused the last answer
    waiting: new Set(), // form ids answered or cancelled here, not yet settled by the hub
    health: null,
    rate: null,
    agents: [],
    log: [],
    logStart: 0,
    notices: [], // {n, tone, text, command}: for the toasts, in order
    noticeCount: 0,
    hues: new Map(), // peer -> its step on the colour circle
    _ids: new Set(), // of the messages in `log`
    _hubStart: null, // s, in this browser's clock
  };
}

/** One past the last entry of the conversation. */
export const logEnd = (model) => model.logStart + model.log.length;

/** Take one frame of the hub. Unknown frames are ignored: a newer hub may send more. */
export function apply(model, frame, now = 0) {
  if (frame !== null && typeof frame === "object" && Object.hasOwn(FRAMES, frame.type)) FRAMES[frame.type](model, frame, now);
  return model;
}

const FRAMES = {
  snapshot: takeSnapshot,
  message: (model, frame, now) => takeMessage(model, frame.message, now),
  peers: (model, frame, now) => takePeers(model, frame.peers, now),
  channels: (model, frame) => { model.channels = frame.channels ?? {}; },
  mode: (model, frame) => { model.mode = frame.mode; model.asked = null; },
  floor: (model, frame) => { model.floors = frame.floors ?? {}; },
  form: takeForm,
  form_resolved: (model, frame, now) => settle(model, { ...frame, at: now }),
  health: takeHealth,
  heartbeat_result: (model, frame) => notice(model, "info", heartbeatText(frame.result)),
  rate: (model, frame) => { model.rate = frame.rate; },
  agents: (model, frame) => { model.agents = frame.agents ?? []; },
  error: takeRefusal,
};

/** Take the socket's status. What was asked and not confirmed is unknown once the line is cut. */
export function applyLink(model, link) {
  model.link = { ...link, role: link.role ?? model.link.role, auth: link.auth ?? model.link.auth };
  if (link.state !== "open") {
    model.asked = null;
    if (model.waiting.size) model.waiting = new Set();
  }
  return model;
}

/** Remember a sent frame until the hub confirms or refuses it. */
export function noteSent(model, frame) {
  if (frame.action) model.asked = frame.action;
  const formId = frame.answer?.id ?? frame.cancel_form;
  if (formId) {
    model.waiting = new Set(model.waiting).add(formId);
    model.refusals = without(model.refusals, formId);
  }
  return model;
}

export const isOpen = (model) => model.link.state === "open";
export const isOperator = (model) => model.link.role === "operator";

// ---- the log ----------------------------------------------------------------------------------------------------

function takeSnapshot(model, frame, now) {
  const log = frame.log ?? [];
  const hubStart = now / 1000 - (frame.health?.uptime ?? 0);
  if (model.log.length && !log.some((message) => model._ids.has(message.id))) {
    if (hubStart > model._hubStart + RESTART_SLACK_S) marker(model, "The hub started anew. What is above was said before.", now);
    else if (log.length) marker(model, "Messages are missing here: more were said while this page was away than the hub keeps.", now);
  }
  model._hubStart = hubStart;
  model.mode = frame.mode;
  model.asked = null;
  model.channels = frame.channels ?? {};
  model.floors = frame.floors ?? {};
  model.forms = [...(frame.forms ?? [])].sort((a, b) => a.ts - b.ts);
  model.waiting = new Set();
  model.rate = frame.rate ?? model.rate;
  model.agents = frame.agents ?? [];
  model.health = frame.health ?? null;
  takePeers(model, frame.peers, now);
  for (const message of log) takeMessage(model, message, now);
}

function takeMessage(model, message, now) {
  if (!message || model._ids.has(message.id)) return; // live before the snapshot, or said before a reconnect
  append(model, message);
  if (message.origin === "agent") claimHue(model, message.sender);
  if (message.meta?.form_id) settle(model, { ...message.meta, id: message.meta.form_id, at: message.ts * 1000 });
}

/** A line of the console itself, where the conversation is not whole. */
function marker(model, text, now) {
  append(model, { id: `marker-${logEnd(model)}`, kind: "marker", content: text, ts: now / 1000, seq: 0, origin: "console" });
}

function append(model, message) {
  model._ids.add(message.id);
  model.log.push(message);
  if (model.log.length < LOG_MAX + LOG_SLACK) return;
  const cut = model.log.splice(0, model.log.length - LOG_MAX);
  for (const old of cut) model._ids.delete(old.id);
  model.logStart += cut.length;
}

/** Who may hear a message: "notice" (the console only), "broadcast", "channel" or "direct". */
export function audienceOf(message) {
  if (message.origin === "hub" && message.kind === "system" && !(message.seq > 0)) return "notice";
  if (message.recipient === "all") return "broadcast";
  return String(message.recipient).startsWith("#") ? "channel" : "direct";
}

// ---- peers and health -------------------------------------------------------------------------------------------

function takePeers(model, peers, now) {
  model.peers = peers ?? [];
  model.peersAt = now;
  for (const peer of model.peers) claimHue(model, peer.name);
}

function takeHealth(model, frame, now) {
  model.health = frame.health;
  if (frame.peers) takePeers(model, frame.peers, now);
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
}

/** Move a form to the settled list. The answer message and `form_resolved` both tell of it, in either order. */
function settle(model, { id, status, answers, title, asker, at }) {
  const form = model.forms.find((pending) => pending.id === id);
  if (form) model.forms = model.forms.filter((pending) => pending.id !== id);
  if (model.waiting.has(id)) {
    model.waiting = new Set(model.waiting);
    model.waiting.delete(id);
  }
  model.refusals = without(model.refusals, id);
  if (model.settled.some((known) => known.id === id)) return;
  const entry = { id, status, title: form?.title ?? title ?? "A form", asker: form?.asker ?? asker ?? "", answers: readable(form, answers), at };
  model.settled = [entry, ...model.settled].slice(0, SETTLED_MAX);
}

/** Answers as pairs of label and text. */
function readable(form, answers) {
  const labels = new Map((form?.fields ?? []).map((field) => [field.key, field.label]));
  return Object.entries(answers ?? {}).map(([key, value]) => [labels.get(key) ?? key, [value].flat().join(", ")]);
}

function without(map, key) {
  if (!map.has(key)) return map;
  const copy = new Map(map);
  copy.delete(key);
  return copy;
}

// ---- refusals and notices ---------------------------------------------------------------------------------------

function takeRefusal(model, frame) {
  const why = reasonText(frame);
  const text = frame.command && !isForbidden(frame) ? `Refused (${frame.command}): ${why}` : why;
  if (frame.command === "action") model.asked = null;
  const id = formOf(model, frame);
  if (id === null) return notice(model, "refused", text, frame.command);
  model.waiting = new Set(model.waiting);
  model.waiting.delete(id);
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

function notice(model, tone, text, command = null) {
  model.noticeCount += 1;
  model.notices = [...model.notices, { n: model.noticeCount, tone, text, command }].slice(-NOTICES_MAX);
}

// ---- words and colours ------------------------------------------------------------------------------------------

/** A duration in at most two units: "4 s", "3 min", "2 h 5 min". */
export function ageText(seconds) {
  const s = Math.max(0, Math.round(seconds ?? 0));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return pair(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "min");
  return pair(Math.floor(s / 86400), "d", Math.floor((s % 86400) / 3600), "h");
}

const pair = (big, bigUnit, small, smallUnit) => `${big} ${bigUnit}${small ? ` ${small} ${smallUnit}` : ""}`;

const HUES = 16; // steps of 22.5 degrees: more, and neighbours look alike
const HUE_STRIDE = 7; // prime to HUES, and far from the hue that was taken

/** The hue of a peer's name: kept for as long as this page lives, and told apart from every other while hues last. */
export function hueOf(model, name) {
  return (model.hues.get(name) ?? ownHue(name)) * (360 / HUES);
}

/** A name keeps its own hue, the same in every browser, unless another peer was there first. */
function claimHue(model, name) {
  if (model.hues.has(name)) return;
  const taken = new Set(model.hues.values());
  let hue = ownHue(name);
  if (taken.size < HUES) while (taken.has(hue)) hue = (hue + HUE_STRIDE) % HUES;
  model.hues.set(name, hue);
}

/** FNV-1a, then murmur's last mix: names are short and differ in a letter. */
function ownHue(name) {
  let hash = 0x811c9dc5;
  for (const char of String(name)) hash = Math.imul(hash ^ char.codePointAt(0), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return ((hash ^ (hash >>> 16)) >>> 0) % HUES;
}
