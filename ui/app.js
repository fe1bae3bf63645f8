// The console, wired: socket > model > panels. Frames change the model at once; the page is drawn once per animation frame.

import { emptyHere, noteOf, watch } from "./absence.js";
import { partOf, withPart } from "./address.js";
import { announce, ask, el, keyed, saveAs, setIcon, setText, toast, wireAsk } from "./dom.js";
import { clockOf, onPref, pref, setPref } from "./prefs.js";
import { ageText, apply, applyLink, emptyModel, isOpen, isOperator, lineOf, logEnd, noteSent } from "./model.js";
import { TOKEN_LINK, fetchExport, fetchPast, openLine } from "./socket.js";
import { openUnsettled } from "./unsettled.js";
import { call } from "./calls.js";
import { emptyDebt, needsOf, owe, settleDebt, wordsOf as wordsOfNeed } from "./needs.js";
import { emptyDeeds, hear, lose, note, wordsOf as wordsOfDeed } from "./deeds.js";
import { sureOf } from "./sure.js";
import { goLive, isLooking as isLookingBack, lookAgain, lookAt, modelThen, openFile, openPast, seek, tick } from "./past.js";
import { momentOfSeq } from "./replay.js";
import * as attention from "./attention.js";
import * as brakes from "./brakes.js";
import * as orders from "./orders.js";
import * as health from "./health.js";
import * as roster from "./roster.js";
import * as flow from "./flow.js";
import * as tools from "./tools.js";
import * as alone from "./alone.js";
import * as happened from "./happened.js";
import * as pinned from "./pinned.js";
import * as lanes from "./lanes.js";
import * as loops from "./loops.js";
import * as composer from "./composer.js";
import * as forms from "./forms.js";
import * as channels from "./channels.js";
import * as rules from "./rules.js";
import * as away from "./away.js";
import * as budgets from "./budgets.js";
import * as stage from "./stage.js";
import * as palette from "./palette.js";
import * as settings from "./settings.js";
import * as share from "./share.js";
import * as timeline from "./timeline.js";
import { openOutbox } from "./outbox.js";
import { MUTES_MAX, mayMute, mutesOf } from "./only.js";
import { keepIn, keptIn } from "./kept.js";

const HIDDEN_DRAW_MS = 1000; // a hidden tab gets no animation frames, but its title must tell of a new need
const TICK_MS = 1000; // ages and "since" count on without the hub
const AWAY_MS = 300_000; // for so long: nobody is there, and the hub may push; one who reads moves less than one who works
const MARK_MS = 4_000; // of the title's number, when it is tried
const IDLE_MS = 120_000; // neither mouse nor key for so long: nobody is looking

const byId = (id) => document.getElementById(id);
const model = emptyModel();

const HERE = "caucus.here"; // in this tab: when somebody was seen here last, for a page that is loaded again

/** What panels need besides the model: what was asked, what is needed, and the ways to act and to go elsewhere. */
const seat = { deeds: emptyDeeds(), debt: emptyDebt(), here: emptyHere(keptIn(sessionStorage, HERE)), needs: [], act, ask: (frame) => putOut(frame), go };
const outbox = openOutbox(sessionStorage);
const unsettled = openUnsettled(sessionStorage);

const record = byId("record"); // this page is a file: the past is in it, and there is no hub
const past = openPast({ fetchPart: fetchPast, changed: plan });
const seatThen = { ...seat, deeds: emptyDeeds(), debt: emptyDebt(), act: refuses, ask: () => false, momentOfSeq: (seq) => momentOfSeq(past.replay, seq) };
let endBefore = null; // of the conversation, when somebody began to look back

// ---- drawing ----------------------------------------------------------------------------------------------------

const PANELS = [ // of the present, whatever is looked at
  ["attention", attention.render],
  ["orders", orders.render],
  ["composer", composer.render],
  ["happened", happened.render],
];
const SIGHTS = [ // of the moment that is looked at
  ["brakes", brakes.render],
  ["health", health.render],
  ["roster", roster.render],
  ["stage", stage.render],
  ["loops", loops.render],
  ["loops-settings", loops.renderSettings],
  ["away", away.render],
  ["share", share.render],
  ["floors", channels.renderFloors],
  ["channels", channels.render],
  ["budgets", budgets.render],
];
const TALK = [ // of the same moment; it has a memory of the very model that it shows
  ["flow", flow.render],
  ["flow-tools", tools.render],
  ["flow-tools", alone.render],
  ["pinned", pinned.render],
  ["lanes", lanes.render],
];

/** A room in which nothing can be done, as an observer has it: the present, while the past that was asked for is not here. */
const watched = (room) => ({ ...room, stage: emptyModel().stage, link: { ...room.link, role: "observer" } });

let isDrawPlanned = false;

function plan() {
  if (isDrawPlanned) return;
  isDrawPlanned = true;
  if (document.hidden) setTimeout(draw, HIDDEN_DRAW_MS);
  else requestAnimationFrame(draw);
}

function draw() {
  isDrawPlanned = false;
  const now = Date.now();
  if (isOpen(model) && !model.isOpening) seat.needs = needsHere(now); // of a room that is out of sight nobody knows what it needs
  tick(past, performance.now());
  owe(seat.debt, model, isLooking(now), now);
  tellHere(now);
  if (!record && !isAddressRead) readAddress();
  const isPast = isLookingBack(past);
  const then = modelThen(past);
  const [shown, at] = then ? [then, past.ms] : [model, now];
  const [seen, own] = isPast ? [then ?? watched(model), seatThen] : [model, seat];
  if (isPast) document.body.dataset.past = past.state;
  else delete document.body.dataset.past;
  byId("attention").inert = isPast; // the banner lies over it
  if (!record) for (const [id, render] of PANELS) render(byId(id), model, send, now, seat);
  for (const [id, render] of SIGHTS) render(byId(id), seen, send, at, own);
  for (const [id, render] of TALK) render(byId(id), shown, send, at, own);
  forms.render(byId(isPast ? "forms-then" : "forms"), seen, send, at, own); // what is typed into one of the present stays
  (isPast ? rules.renderThen : rules.render)(byId(isPast ? "rules-then" : "rules"), seen, send, at, own);
  if (endBefore === null && model.mode !== null && !model.isOpening) endBefore = logEnd(model);
  timeline.render(byId("timeline"), past, { needs: seat.needs.length, since: logEnd(model) - (endBefore ?? logEnd(model)), trouble: troubleOf(), go, now: performance.now() });
  giveBack();
  drawLink(now, shown);
  drawCounts(shown);
  tellNews();
  offerUndo();
  tellLooking();
  if (past.isPlaying) plan();
}

function drawCounts(shown) {
  const counts = { peers: shown.peers.length, channels: Object.keys(shown.channels).length, forms: shown.forms.length };
  for (const node of document.querySelectorAll("[data-count]")) setText(node, counts[node.dataset.count] ? String(counts[node.dataset.count]) : "");
  const number = Date.now() < markUntil ? Math.max(1, seat.needs.length) : pref("mark") && isOperator(model) && seat.needs.length;
  const waiting = number ? `(${number}) ` : "";
  const title = record ? "Caucus record" : `${waiting}${isLookingBack(past) ? "Replay · " : ""}Caucus${model.mode && model.mode !== "running" ? ` · ${model.mode}` : ""}${isOpen(model) ? "" : " · disconnected"}`;
  if (document.title !== title) document.title = title;
}

let isToldLooking = false; // whether somebody sits here, as the hub was told last
let markUntil = 0; // ms; the title's number is tried

function showMark() {
  markUntil = Date.now() + MARK_MS;
  plan();
}

// ---- the line to the hub ----------------------------------------------------------------------------------------

const line = record ? { send: () => false, retryNow: () => {} } : openLine({
  onFrame: (frame) => {
    const now = Date.now();
    apply(model, frame, now);
    outbox.hear(frame);
    hear(seat.deeds, model, frame, now);
    if (frame?.type === "said") flow.noteOwn(frame.id);
    if (frame?.type === "snapshot" && isOperator(model)) sayAgain();
    if (frame?.type === "snapshot") lookAgain(past);
    plan();
  },
  onStatus: (status) => {
    applyLink(model, status);
    if (status.state !== "open") {
      lose(seat.deeds, Date.now());
      isToldLooking = false; // another line begins with nobody looking
    }
    askForToken(status);
    plan();
  },
});

/** Whether this is the past: then it says so, for nothing can be done in it. */
function refuses() {
  if (!isLookingBack(past)) return false;
  toast(record ? "This is a record: nothing can be done in it." : "This is the past: go Live first (b).", "refused");
  return true;
}

/** The one way out for what is done here: from the past nothing leaves, whatever control or key would send it. */
const putOut = (frame) => !isLookingBack(past) && line.send(frame);

/** Send a command and remember it as asked; give it as it was sent, or false when there is no line, so that the caller keeps what was typed. */
function send(command, isTyped = true) {
  const frame = outbox.sign(command);
  if (refuses() || !isOperator(model) || !isOpen(model) || !putOut(frame)) return false;
  outbox.note(frame, Date.now(), model.room, isTyped);
  noteSent(model, frame);
  note(seat.deeds, model, frame, Date.now());
  plan();
  return frame;
}

/** The line is back: what the hub has not confirmed goes again, under the same client_id; but never into another room. It was said in the present, and goes though one looks back meanwhile. */
function sayAgain() {
  const { frames, old, strange } = outbox.again(Date.now(), model.room);
  strangers.push(...strange);
  for (const frame of frames) line.send(frame);
  for (const { say } of old) toast(`Nobody knows whether the room has this, for the line was away too long to send it again: “${lineOf(say, 200)}”`, "refused");
}

const strangers = []; // what was said into another room, until the page is drawn

function giveBack() {
  for (const { frame, isTyped } of strangers.splice(0)) {
    if (isTyped && composer.takeBack(byId("composer"), frame)) toast("This is a new room, and nobody knows whether the old one had your words: they are in the field again.", "refused");
    else toast(`This is a new room; into the old one you said, unconfirmed: “${lineOf(frame.say, 200)}”`, "refused");
  }
}

/** Do what a control stands for; what cannot be taken back asks once. */
async function act(frame) {
  if (refuses()) return;
  const question = sureOf(frame, model);
  if (question && !(await ask(question))) return;
  const sent = send(frame, false);
  if (!sent && !isLookingBack(past)) toast("The hub is out of reach: nothing was sent.", "refused");
  else if (sent && UNDO.some(({ of }) => of(frame))) undoable = seat.deeds.list[0];
}

// ---- undo -------------------------------------------------------------------------------------------------------

// A brake that was touched by mistake is let go with one press: what it was, what it says, whether it still holds, and what takes it back.
const UNDO = [
  { of: ({ action }) => action === "pause", text: () => "The room is paused.", holds: () => model.mode === "paused", back: () => ({ action: "resume" }) },
  { of: (frame) => Object.hasOwn(frame, "pause_peer"), text: ({ pause_peer: name }) => `${name} is paused.`,
    holds: ({ pause_peer: name }) => model.peers.some((peer) => peer.name === name && peer.paused), back: ({ pause_peer: name }) => ({ resume_peer: name }) },
];

let undoable = null; // the deed that can be undone once it is in effect
let undo = null; // what is offered: {frame, one, close}

/** Offer to take back what is in effect now; no longer than it holds. */
function offerUndo() {
  if (undo && !undo.one.holds(undo.frame)) {
    undo.close();
    undo = null;
  }
  if (undoable?.state === "asked" || undoable === null) return;
  const { frame, state } = undoable;
  undoable = null;
  const one = UNDO.find(({ of }) => of(frame));
  if (state !== "effective" || !one.holds(frame)) return;
  undo?.close();
  undo = { frame, one, close: toast(one.text(frame), "info", () => { if (one.holds(frame)) act(one.back(frame)); }) };
}

const LINK_WORDS = { open: "Connected", connecting: "Connecting…", closed: "Disconnected", "needs-token": "Token needed" };

function drawLink(now, shown) {
  document.body.toggleAttribute("data-known", shown.mode !== null);
  if (record) return;
  const { since, retryAt, reason, role, auth } = model.link;
  const state = model.link.state === "open" && !isOpen(model) ? "connecting" : model.link.state; // until the room is here, nothing can be said
  const connection = byId("connection");
  connection.dataset.state = state;
  document.body.dataset.link = state;
  document.body.dataset.role = role ?? "";
  setText(connection, state === "open" && role === "observer" ? "Connected, observing" : LINK_WORDS[state]);
  byId("forget-token").hidden = !(auth && state === "open");
  byId("banner").hidden = !isLost() || isLookingBack(past); // the past has the same place, and tells it too
  const next = state === "connecting" ? "Reconnecting now…" : `Trying again in ${ageText(Math.max(1, (retryAt - now) / 1000))}.`;
  const stale = model.mode === null ? "" : " What you see is from then.";
  const cut = `No line to the hub since ${clockOf(since, "2-digit")} (${ageText((now - since) / 1000)}).`;
  setText(byId("banner-text"), byId("banner").hidden ? "" : `${cut}${stale} ${reason ?? ""} ${next}`);
  byId("retry").disabled = state === "connecting";
  drawUnkept(state);
}

/** Whether there is no line; the very first try needs no alarm. */
const isLost = () => !record && !["open", "needs-token"].includes(model.link.state) && (model.mode !== null || model.link.state === "closed");

const causeOf = () => model.health?.journal?.cause;

/** What is wrong in the present, in few words, for who looks back. */
const troubleOf = () => (isLost() ? "no line to the hub" : model.link.state === "open" && causeOf() ? "the hub cannot write its journal" : "");

/** Say that the hub's disk keeps nothing any more: agents are refused, the operator's brakes hold in memory. */
function drawUnkept(state) {
  const cause = state === "open" && !isLookingBack(past) ? causeOf() : null;
  byId("unkept").hidden = !cause;
  setText(byId("unkept"), cause ? `The hub cannot write its journal: ${cause}. Agents are refused; Pause, Stop and Kick still work.` : "");
}

// ---- what needs the operator ------------------------------------------------------------------------------------

function needsHere(now) {
  unsettled.look(model, now);
  const all = needsOf(model, now);
  unsettled.retain(new Set(all.map((need) => need.id)));
  return all.filter((need) => !unsettled.isDismissed(need.id));
}

let touchedAt = Date.now();
let pointerAt = ""; // where it was last: a browser tells of a move, too, when the page moves under a pointer that rests

for (const kind of ["pointermove", "pointerdown", "keydown", "wheel", "focus"]) {
  addEventListener(kind, (event) => {
    const place = kind === "pointermove" ? `${event.screenX} ${event.screenY}` : "";
    if (place && place === pointerAt) return;
    pointerAt = place || pointerAt;
    touchedAt = Date.now();
    tellHere(touchedAt);
  }, { passive: true });
}

/** Whether somebody reads what arrives: the page is in front, not left alone, and shows the newest. */
function isLooking(now) {
  return !isLookingBack(past) && !document.hidden && document.hasFocus() && now - touchedAt < IDLE_MS && flow.isFollowing();
}

/** Tell the hub when the operator comes to this page, or leaves it: meanwhile nothing is pushed. */
function tellLooking() {
  if (!isOpen(model) || !isOperator(model)) return;
  const idle = Date.now() - touchedAt;
  const isHere = !document.hidden && document.hasFocus() && idle < AWAY_MS;
  if (isHere === isToldLooking) return;
  if (line.send(isHere ? { looking: true } : { looking: false, idle: Math.min(86_400, Math.max(0, idle / 1000)) })) isToldLooking = isHere;
}

for (const kind of ["focus", "blur", "pagehide"]) addEventListener(kind, tellLooking);
document.addEventListener("visibilitychange", tellLooking);

const HERE_MS = 2_000; // between two notes of it

let hereNoted = { at: 0, absent: null };

/** Note whether somebody is here, so that whoever comes back is told what happened. */
function tellHere(now) {
  if (record) return;
  watch(seat.here, model, { isHidden: document.hidden, touchedAt }, now);
  const { at, absent } = seat.here;
  if (!at || (absent === hereNoted.absent && at - hereNoted.at < HERE_MS)) return;
  hereNoted = { at, absent };
  keepIn(sessionStorage, HERE, noteOf(seat.here));
}

document.addEventListener("visibilitychange", () => { tellHere(Date.now()); plan(); });

const PLACES = {
  form: (id) => { showTab("forms"); forms.reveal(byId("forms"), id); },
  message: showMessage,
  loop: (lane) => { showTab("channels"); loops.reveal(byId("loops"), lane); },
  evidence: (evidence) => { showTab("flow"); flow.showEvidence(evidence); },
  roster: (name) => { showTab("health"); roster.reveal(byId("roster"), name); },
  reply: (message) => { showTab("flow"); composer.reply(byId("composer"), message); },
  stage: (name) => { showTab("channels"); stage.reveal(byId("stage"), name); },
  write: (scope) => { showTab("flow"); composer.aim(byId("composer"), scope); },
  dismiss: (id) => unsettled.dismiss(id),
  only: showOnly,
  thread: (id) => { showTab("flow"); flow.showThread(id); },
  mute,
  pin: (what) => { showTab("flow"); if (pref("view") === "picture") setPref("view", "both"); pinned.pin(byId("pinned"), what); },
  "caught-up": () => settleDebt(seat.debt, model),
  rate: openRate,
  budgets: (of) => budgets.show(byId("budgets"), of),
  help: () => byId("help").showModal(),
  look: lookBack,
  moment: goToMoment,
  again: () => lookAgain(past),
  live: backToLive,
};
const OF_THE_PAST = new Set(["help", "only", "thread", "mute", "pin", "evidence", "budgets", "look", "moment", "again", "live"]); // all others act on the present

/** Show a message; from the record, when it is not on this page any more. */
async function showMessage(id, seq = 0) {
  showTab("flow");
  if (!flow.reveal(id) && !(seq > 0 && (await flow.openSeq(seq))) && !(seq > 0)) toast("That message is not on this page any more; the export has it.", "refused");
  plan();
}

/** Show a peer, a lane or the operator alone; and of it a message. */
function showOnly(what, id = null, seq = 0) {
  showTab("flow");
  flow.showOnly(what);
  if (id !== null) void showMessage(id, seq);
}

/** Leave a lane or a peer out of the flow, or hear it again. */
function mute(what) {
  const mutes = mutesOf(pref("mutes"));
  if (!mutes.delete(what)) {
    if (!mayMute(what) || mutes.size >= MUTES_MAX) return void toast(mayMute(what) ? "So many are muted already: hear some of them again first." : "What goes to you cannot be muted.", "refused");
    mutes.add(what);
    flow.leaveOnly();
  }
  setPref("mutes", [...mutes]);
}

function go(where, ...what) {
  if (where === undefined || OF_THE_PAST.has(where) || !refuses()) PLACES[where]?.(...what);
  plan();
}

// ---- the past ---------------------------------------------------------------------------------------------------

const AT_LINK = "at=";
const ADDRESS_MS = 500; // browsers take no more than so many changes of the address

let hashBefore = ""; // the address that looking back took the place of

/** Look at the room as it was, ms, or without a moment at the latest of it. */
function lookBack(ms = Infinity) {
  if (record) return seek(past, ms);
  if (!isLookingBack(past)) {
    endBefore = null;
    hashBefore = withPart(location.hash, AT_LINK, null);
    for (const one of document.querySelectorAll(":is(#attention, #orders) [popover]:popover-open")) one.hidePopover();
    for (const name of ["confirm", "rate-dialog"]) byId(name).close("");
  }
  announce("Replay: the room as it was. Nothing can be done in it.");
  return void lookAt(past, ms);
}

function backToLive() {
  if (record || !isLookingBack(past)) return;
  goLive(past);
  history.replaceState(null, "", location.pathname + location.search + hashBefore);
  draw(); // before another key comes: what it goes to is inert until then
  announce("The present again.");
}

/** Go to a moment, ms, of what is loaded, or look at what is around it. */
function goToMoment(ms) {
  const { replay, state } = past;
  if (state === "shown" && ms >= replay.from && ms <= replay.to) seek(past, ms);
  else lookBack(ms);
}

/** The moment that the address names, ms; null: it names none. */
function momentOfAddress() {
  const ms = Date.parse(partOf(location.hash, AT_LINK) ?? "");
  return Number.isNaN(ms) ? null : ms;
}

let isAddressRead = false; // a hub that asks for a token tells nobody of the past before

function readAddress() {
  if (!record && !isOpen(model)) return;
  isAddressRead = true;
  if (partOf(location.hash, AT_LINK) === null) return;
  const ms = momentOfAddress();
  if (ms === null) toast("The link names no moment: after #at= stands a time such as 2026-03-12T14:00:00Z.", "refused");
  else if (past.state !== "shown" || Math.abs(ms - past.ms) >= 1) goToMoment(ms);
}

setInterval(() => {
  if (past.state !== "shown" || past.isPlaying || (record && past.ms >= past.replay.to)) return;
  const address = withPart(["seq=", "m-"].reduce((hash, prefix) => withPart(hash, prefix, null), location.hash), AT_LINK, new Date(past.ms).toISOString());
  if (location.hash !== address && partOf(location.hash, "t-") === null) history.replaceState(null, "", address);
}, ADDRESS_MS);

byId("replay-open").addEventListener("click", () => (isLookingBack(past) ? backToLive() : lookBack()));
if (!record) addEventListener("hashchange", () => { if (location.hash.startsWith(TOKEN_LINK)) location.reload(); });
addEventListener("hashchange", () => { isAddressRead = false; readAddress(); });

// ---- news: toasts, and what a screen reader is told -------------------------------------------------------------

let toldNotices = 0;
let told = { mode: null, open: false, deed: null };

function tellNews() {
  for (const notice of model.notices) if (notice.n > toldNotices) toast(notice.text, notice.tone);
  toldNotices = model.noticeCount;
  const isKnown = isOpen(model) && !model.isOpening; // what waits as the page opens is no news
  const fresh = isKnown ? call(seat.needs, { sound: pref("sound"), notify: pref("notify") }) : [];
  const [deed] = seat.deeds.list;
  const deedKey = deed && deed.state !== "asked" ? `${deed.n} ${deed.state}` : told.deed;
  if (told.open !== isOpen(model)) announce(isOpen(model) ? "Connected to the hub." : "The line to the hub is lost.");
  else if (model.mode && told.mode !== model.mode) announce(`The room is ${model.mode}.`);
  else if (fresh.length) announce(wordsOfNeed(fresh[0]));
  else if (deedKey !== told.deed) announce(`${deed.word}: ${wordsOfDeed(deed, Date.now())}`);
  told = { mode: model.mode, open: isOpen(model), deed: deedKey };
}

// ---- token ------------------------------------------------------------------------------------------------------

const ENDED = "caucus.ended"; // this tab looked on, and may no more

function askForToken({ state, refused }) {
  const dialog = byId("token-dialog");
  if (refused && model.link.role === "observer") { // of a room that one may see no more nothing stays
    sessionStorage.setItem(ENDED, "1");
    return void location.reload();
  }
  if (state === "open") dialog.close();
  if (state !== "needs-token") return;
  const hasEnded = !refused && sessionStorage.getItem(ENDED) !== null;
  sessionStorage.removeItem(ENDED);
  byId("token-refused").hidden = !refused && !hasEnded;
  setText(byId("token-refused"), refused ? "The hub does not know this token." : hasEnded ? "Your link was revoked, or the hub has another token now." : "");
  if (!dialog.open) dialog.showModal();
  byId("token-input").focus();
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = byId("token-input").value.trim();
  if (!token) return;
  byId("token-input").value = "";
  line.authenticate(token, byId("token-remember").checked);
});
byId("token-dialog").addEventListener("cancel", (event) => event.preventDefault()); // behind it is nothing to see
byId("forget-token").addEventListener("click", () => {
  line.forget();
  unsettled.forget();
  location.reload(); // nothing of the room stays on the page
});
byId("retry").addEventListener("click", () => line.retryNow());
addEventListener("online", () => line.retryNow());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) line.retryNow();
});

// ---- the rate ---------------------------------------------------------------------------------------------------

function openRate() {
  if (refuses() || !isOperator(model) || byId("rate-dialog").open) return;
  byId("rate-refill").value = model.rate?.refill_rate ?? 2;
  byId("rate-burst").value = model.rate?.capacity ?? 10;
  byId("rate-dialog").showModal();
}

byId("rate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const [refill_rate, capacity] = [byId("rate-refill").valueAsNumber, byId("rate-burst").valueAsNumber];
  byId("rate-dialog").close();
  act({ set_rate: { refill_rate, capacity } });
});
byId("rate-no").addEventListener("click", () => byId("rate-dialog").close());

// ---- export -----------------------------------------------------------------------------------------------------

const [EXPORTED, EXPORTED_NOTICES] = [500, 150]; // lines of an export, where there is no journal, and notices among them: as the hub has them

/** Say what an export leaves out, if anything: without a journal it has the hub's newest lines only. */
function tellLeftOut() {
  if (!isOpen(model) || model.isOpening || model.health?.journal) return;
  let [lines, notices, words] = [0, 0, 0];
  for (const { id, seq } of model.log.toReversed()) {
    if (seq === 0 && (notices += 1) > EXPORTED_NOTICES) continue;
    if ((lines += 1) > EXPORTED) break;
    words += model._ids.get(seq) === id;
  }
  const left = model.lastSeq - words;
  if (left > 0) toast(`This hub keeps no journal: the file leaves out the oldest ${left.toLocaleString()} of ${model.lastSeq.toLocaleString()} messages, and says so. With --journal FILE an export has all of them.`);
}

for (const link of document.querySelectorAll("[data-export]")) {
  link.addEventListener("click", async (event) => {
    if (link.dataset.export !== "record") tellLeftOut();
    if (!model.link.auth && link.dataset.export !== "record") return; // an open hub serves a plain link; of a record it may have none
    event.preventDefault();
    try {
      const { blob, name } = await fetchExport(link.getAttribute("href"));
      saveAs(blob, name);
    } catch (failure) {
      toast(`Nothing was exported: ${failure.message}.`, "refused");
    }
  });
}

// ---- theme ------------------------------------------------------------------------------------------------------

const THEMES = { auto: "light", light: "dark", dark: "auto" }; // theme -> the next one

const TINTS = { light: "#ffffff", dark: "#191d22" }; // of a phone's bar above the page, as the header

function showTheme() {
  const theme = Object.hasOwn(THEMES, pref("theme")) ? pref("theme") : "auto";
  document.documentElement.dataset.theme = theme;
  for (const tint of document.querySelectorAll('meta[name="theme-color"]')) tint.content = TINTS[theme === "auto" ? tint.dataset.tint : theme];
  setIcon(byId("theme"), theme);
  const label = `Theme: ${theme === "auto" ? "as the system" : theme}`;
  byId("theme").setAttribute("aria-label", label);
  byId("theme").title = `${label} (t)`;
}

function nextTheme() {
  setPref("theme", THEMES[document.documentElement.dataset.theme]);
  showTheme();
}

function showDensity() {
  document.documentElement.dataset.density = pref("density") === "compact" ? "compact" : "comfortable";
}

// ---- keyboard ---------------------------------------------------------------------------------------------------

const KEYS = [
  ["n", "Go to what needs you first; again: to the next", goToNeed],
  ["m", "Write a message", () => goTo("flow", document.querySelector("#composer textarea"))],
  ["a", "Choose whom the message is for", () => goTo("flow", byId("target"))],
  ["l", "Go to the latest message and follow", () => { flow.follow(); goTo("flow", byId("flow")); }],
  ["/", "Search the conversation", () => { showTab("flow"); tools.focusSearch(); }],
  ["d", "Go to a time", () => { showTab("flow"); tools.askTime(); }],
  ...flow.KEYS.map(([key, text, run]) => [key, text, () => { showTab("flow"); run(); }]),
  ["f", "Go to the first form that waits", () => { showTab("forms"); if (!forms.reveal(byId(isLookingBack(past) ? "forms-then" : "forms"))) byId("forms-title").focus(); }],
  ["h", "Go to the room's health", () => goTo("health", byId("health-title"))],
  ["g", "Go to the peers", () => goTo("health", byId("peers-title"))],
  ["c", "Go to the channels", () => goTo("channels", byId("channels-title"))],
  ["w", "What became of your orders", () => document.querySelector(".orders-more:not([hidden])")?.click()],
  ["Shift P", "Pause, or resume", () => brakes.press("Shift P")],
  ["Shift S", "Stop all (asks first)", () => brakes.press("Shift S")],
  ["Shift R", "Resume; or reset a stopped room (asks first)", () => brakes.press("Shift R")],
  ["b", "Look back: replay; and back to the present", () => (isLookingBack(past) ? backToLive() : lookBack())],
  ["[", "In the replay: to the mark before", () => timeline.jump(past, -1)],
  ["]", "In the replay: to the next mark", () => timeline.jump(past, 1)],
  [".", "In the replay: play, or hold", () => timeline.toggle(past)],
  ["t", "Change the theme", nextTheme],
  [",", "Settings, and the house rules", () => { if (!record) byId("settings").showModal(); plan(); }],
  ["?", "Show this map", () => byId("help").showModal()],
];
const RULING_KEYS = new Set(["n", "m", "a", "w", "r", "Shift P", "Shift S", "Shift R"]); // they act on the present
const FIXED_KEYS = [
  ["Ctrl K", "Go anywhere, do anything: peers, channels, commands, needs, settings"],
  ["Enter", "In the composer: send"],
  ["Shift Enter", "In the composer: new line"],
  ["↑ ↓", "In the composer: what you said before"],
  ["@ # /", "In the composer: peers, channels, commands; Tab takes one. A name at the head says whom it is for"],
  ["Ctrl Enter", "In a form: next question, or send"],
  ["Enter", "In the flow: to the newest message; on a message: who has it"],
  ["Esc", "Leave a field, a dialog, what happened, marks, a thread, or what is shown alone; in the composer: drop the answer"],
];

const TYPED_MS = 400; // whoever types has the next key under the fingers by then
let letterAt = -Infinity; // when a letter came that no field took
let fieldAt = -Infinity; // when one came that a field took

/** All that the palette reaches, as the room is now. */
function reachable() {
  const isRuling = isOperator(model) && !isLookingBack(past) && !record;
  const room = { model: modelThen(past) ?? model, needs: record || isLookingBack(past) ? [] : seat.needs, isOperator: isRuling, settings: record ? [] : settings.SWITCHES,
    keys: KEYS.filter(([key]) => isRuling || !RULING_KEYS.has(key)) };
  return palette.entriesOf(room, { go, act,
    write: (text) => { showTab("flow"); composer.begin(byId("composer"), text); },
    find: (line) => { showTab("flow"); tools.find(line); tools.focusSearch(); },
    press: ([key, , run]) => { if (!RULING_KEYS.has(key) || !refuses()) run(); },
    set: (name) => { byId("settings").showModal(); plan(); byId(`pref-${name}`).focus(); } });
}

let brakeTimer; // a brake's capital letter may be the first of a sentence that nobody sees: it acts when no other follows

function onKey(event) {
  if (event.key.length === 1) clearTimeout(brakeTimer);
  if ((event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey && event.key.toLowerCase() === "k" && !event.isComposing) {
    event.preventDefault();
    return void palette.toggle(reachable);
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.keyCode === 229 || event.defaultPrevented || document.querySelector("dialog[open]")) return;
  const typing = event.target.closest("input:not([type=radio], [type=checkbox], [type=range]), textarea, select");
  if (typing) {
    if (event.key === "Escape") typing.blur();
    fieldAt = event.key.length === 1 ? event.timeStamp : -Infinity;
    const isBlind = typing.localName === "select" && event.key.length === 1 && event.timeStamp - letterAt < TYPED_MS; // a letter has led here, and the text goes on: it chooses nothing
    if (isBlind) event.preventDefault();
    letterAt = isBlind ? event.timeStamp : -Infinity;
    return;
  }
  if (event.key.length === 1 && event.timeStamp - fieldAt < TYPED_MS) { // the field went away under the hand: the text goes on, and does nothing
    fieldAt = event.timeStamp;
    return event.preventDefault();
  }
  if (event.key === " " && event.timeStamp - letterAt < TYPED_MS) return event.preventDefault(); // it is part of a text that nobody sees: it presses nothing
  if (event.key === "Enter" && flow.onEnter(event.target)) return event.preventDefault();
  const leaves = () => happened.dismiss(byId("happened")) || flow.leaveEvidence() || flow.leaveThread() || flow.leaveOnly();
  if (event.key === "Escape" && !document.querySelector("[popover]:popover-open") && leaves()) return event.preventDefault();
  const pressed = event.shiftKey && /^[a-z]$/i.test(event.key) ? `Shift ${event.key.toUpperCase()}` : event.key;
  letterAt = event.key.length === 1 && event.key !== " " ? event.timeStamp : -Infinity;
  const binding = pref("keys") ? KEYS.find(([key]) => key === pressed) : undefined;
  if (!binding) return;
  event.preventDefault();
  const run = () => { if (!RULING_KEYS.has(pressed) || !refuses()) binding[2](); };
  if (pressed === "Shift P" || pressed === "Shift R") brakeTimer = setTimeout(run, TYPED_MS);
  else run();
}

function goToNeed() {
  const needs = [...document.querySelectorAll("#attention > .needs .need")].filter((need) => need.querySelector("button"));
  const at = needs.findIndex((need) => need.contains(document.activeElement));
  (needs[(at + 1) % needs.length]?.querySelector("button") ?? byId("flow")).focus();
}

function goTo(tab, node) {
  showTab(tab);
  node?.focus();
}

/** On a narrow page one panel shows at a time; on a wide one this changes nothing to see. */
function showTab(tab) {
  document.body.dataset.tab = tab;
  for (const node of document.querySelectorAll("[data-goto]")) {
    if (node.dataset.goto === tab) node.setAttribute("aria-current", "true");
    else node.removeAttribute("aria-current");
  }
  plan();
}

// ---- start ------------------------------------------------------------------------------------------------------

for (const node of document.querySelectorAll("[data-icon]")) setIcon(node, node.dataset.icon);
keyed(byId("help-keys"), [...KEYS, ...FIXED_KEYS], ([key]) => key,
  ([key, text]) => el("div", {}, el("dt", {}, key.split(" ").map((one) => el("kbd", {}, one))), el("dd", {}, text)));
for (const node of document.querySelectorAll("[data-goto]")) node.addEventListener("click", () => showTab(node.dataset.goto));
for (const name of ["help", "settings"]) {
  byId(`${name}-open`).addEventListener("click", () => { byId(name).showModal(); plan(); });
  byId(`${name}-close`).addEventListener("click", () => byId(name).close());
}
document.addEventListener("click", (event) => {
  const { only } = event.target.closest?.("[data-only]")?.dataset ?? {};
  if (only) go("only", only);
});
byId("budgets-open").addEventListener("click", () => go("budgets"));
byId("theme").addEventListener("click", nextTheme);
document.addEventListener("keydown", onKey);
settings.render(byId("settings-list"), showMark);
wireAsk();
showTheme();
showDensity();
onPref(showDensity);
onPref(plan);
setInterval(plan, TICK_MS);
if (record) {
  openFile(past, JSON.parse(record.textContent), Infinity);
  readAddress();
}
plan();
