// The console, wired: socket > model > panels. Frames change the model at once; the page is drawn once per animation frame.

import { announce, ask, el, keyed, saveAs, setIcon, setText, toast, wireAsk } from "./dom.js";
import { clockOf, onPref, pref, setPref } from "./prefs.js";
import { ageText, apply, applyLink, emptyModel, isOpen, isOperator, lineOf, logEnd, noteSent } from "./model.js";
import { fetchExport, fetchPast, openLine } from "./socket.js";
import { emptyDebt, needsOf, owe, settleDebt } from "./needs.js";
import { emptyDeeds, hear, lose, note, wordsOf as wordsOfDeed } from "./deeds.js";
import { sureOf } from "./sure.js";
import { goLive, isLooking as isLookingBack, lookAt, modelThen, openFile, openPast, seek, tick } from "./past.js";
import * as attention from "./attention.js";
import * as brakes from "./brakes.js";
import * as orders from "./orders.js";
import * as health from "./health.js";
import * as roster from "./roster.js";
import * as flow from "./flow.js";
import * as tools from "./tools.js";
import * as lanes from "./lanes.js";
import * as composer from "./composer.js";
import * as forms from "./forms.js";
import * as channels from "./channels.js";
import * as rules from "./rules.js";
import * as budgets from "./budgets.js";
import * as settings from "./settings.js";
import * as timeline from "./timeline.js";
import { openOutbox } from "./outbox.js";

const HIDDEN_DRAW_MS = 1000; // a hidden tab gets no animation frames, but its title must tell of a new need
const TICK_MS = 1000; // ages and "since" count on without the hub
const IDLE_MS = 120_000; // neither mouse nor key for so long: nobody is looking

const byId = (id) => document.getElementById(id);
const model = emptyModel();

/** What panels need besides the model: what was asked, what is needed, and the ways to act and to go elsewhere. */
const seat = { deeds: emptyDeeds(), debt: emptyDebt(), needs: [], act, ask: (frame) => line.send(frame), go };
const outbox = openOutbox(sessionStorage);

const record = byId("record"); // this page is a file: the past is in it, and there is no hub
const past = openPast({ fetchPart: fetchPast, changed: plan });
const seatThen = { ...seat, deeds: emptyDeeds(), debt: emptyDebt(), act: () => {}, ask: () => false }; // of the past nothing can be changed
let endBefore = null; // of the conversation, when somebody began to look back

// ---- drawing ----------------------------------------------------------------------------------------------------

const PANELS = [ // of the present, whatever is looked at
  ["attention", attention.render],
  ["orders", orders.render],
  ["composer", composer.render],
  ["rules", rules.render],
];
const SIGHTS = [ // of the moment that is looked at
  ["brakes", brakes.render],
  ["health", health.render],
  ["roster", roster.render],
  ["flow", flow.render],
  ["flow-tools", tools.render],
  ["lanes", lanes.render],
  ["floors", channels.renderFloors],
  ["channels", channels.render],
  ["budgets", budgets.render],
];

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
  const then = modelThen(past);
  const [shown, at, own] = then ? [then, past.ms, seatThen] : [model, now, seat];
  document.body.toggleAttribute("data-past", isLookingBack(past));
  if (!record) for (const [id, render] of PANELS) render(byId(id), model, send, now, seat);
  for (const [id, render] of SIGHTS) render(byId(id), shown, send, at, own);
  forms.render(byId(then ? "forms-then" : "forms"), shown, send, at, own); // what is typed into one of the present stays
  if (endBefore === null && model.mode !== null && !model.isOpening) endBefore = logEnd(model);
  timeline.render(byId("timeline"), past, { needs: seat.needs.length, since: logEnd(model) - (endBefore ?? logEnd(model)), go, now: performance.now() });
  giveBack();
  drawLink(now, shown);
  drawCounts(shown);
  tellNews();
  if (past.isPlaying) plan();
}

function drawCounts(shown) {
  const counts = { peers: shown.peers.length, channels: Object.keys(shown.channels).length, forms: shown.forms.length };
  for (const node of document.querySelectorAll("[data-count]")) setText(node, counts[node.dataset.count] ? String(counts[node.dataset.count]) : "");
  const waiting = pref("badge") && seat.needs.length ? `(${seat.needs.length}) ` : "";
  const title = record ? "Caucus record" : `${waiting}${isLookingBack(past) ? "Replay · " : ""}Caucus${model.mode && model.mode !== "running" ? ` · ${model.mode}` : ""}${isOpen(model) ? "" : " · disconnected"}`;
  if (document.title !== title) document.title = title;
}

// ---- the line to the hub ----------------------------------------------------------------------------------------

const line = record ? { send: () => false, retryNow: () => {} } : openLine({
  onFrame: (frame) => {
    const now = Date.now();
    apply(model, frame, now);
    outbox.hear(frame);
    hear(seat.deeds, model, frame, now);
    if (frame?.type === "snapshot" && isOperator(model)) sayAgain();
    plan();
  },
  onStatus: (status) => {
    applyLink(model, status);
    if (status.state !== "open") lose(seat.deeds, Date.now());
    askForToken(status);
    plan();
  },
});

/** Send a command and remember it as asked; give it as it was sent, or false when there is no line, so that the caller keeps what was typed. */
function send(command, isTyped = true) {
  const frame = outbox.sign(command);
  if (!isOperator(model) || !isOpen(model) || !line.send(frame)) return false;
  outbox.note(frame, Date.now(), model.room, isTyped);
  noteSent(model, frame);
  note(seat.deeds, model, frame, Date.now());
  plan();
  return frame;
}

/** The line is back: what the hub has not confirmed goes again, under the same client_id; but never into another room. */
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
  const question = sureOf(frame, model);
  if (question && !(await ask(question))) return;
  if (!send(frame, false)) toast("The hub is out of reach: nothing was sent.", "refused");
}

const LINK_WORDS = { open: "Connected", connecting: "Connecting…", closed: "Disconnected", "needs-token": "Token needed" };

function drawLink(now, shown) {
  document.body.toggleAttribute("data-known", shown.mode !== null);
  if (record) return;
  const { state, since, retryAt, reason, role, auth } = model.link;
  const connection = byId("connection");
  connection.dataset.state = state;
  document.body.dataset.link = state;
  document.body.dataset.role = role ?? "";
  setText(connection, state === "open" && role === "observer" ? "Connected, observing" : LINK_WORDS[state]);
  byId("forget-token").hidden = !(auth && state === "open");
  const lost = model.mode !== null || state === "closed"; // the very first try needs no alarm
  byId("banner").hidden = state === "open" || state === "needs-token" || !lost;
  const next = state === "connecting" ? "Reconnecting now…" : `Trying again in ${ageText(Math.max(1, (retryAt - now) / 1000))}.`;
  const stale = model.mode === null ? "" : " What you see is from then.";
  const cut = `No line to the hub since ${clockOf(since, "2-digit")} (${ageText((now - since) / 1000)}).`;
  setText(byId("banner-text"), byId("banner").hidden ? "" : `${cut}${stale} ${reason ?? ""} ${next}`);
  byId("retry").disabled = state === "connecting";
  drawUnkept(state);
}

/** Say that the hub's disk keeps nothing any more: agents are refused, the operator's brakes hold in memory. */
function drawUnkept(state) {
  const cause = state === "open" ? model.health?.journal?.cause : null;
  byId("unkept").hidden = !cause;
  setText(byId("unkept"), cause ? `The hub cannot write its journal: ${cause}. Agents are refused; Pause, Stop and Kick still work.` : "");
}

// ---- what needs the operator ------------------------------------------------------------------------------------

const dismissed = new Set(); // ids of needs that were waved away, for as long as their cause lasts

function needsHere(now) {
  const all = needsOf(model, now);
  const ids = new Set(all.map((need) => need.id));
  for (const id of dismissed) if (!ids.has(id)) dismissed.delete(id);
  return all.filter((need) => !dismissed.has(need.id));
}

let touchedAt = Date.now();

for (const kind of ["pointermove", "pointerdown", "keydown", "wheel", "focus"]) addEventListener(kind, () => { touchedAt = Date.now(); }, { passive: true });

/** Whether somebody reads what arrives: the page is in front, not left alone, and shows the newest. */
function isLooking(now) {
  return !isLookingBack(past) && !document.hidden && document.hasFocus() && now - touchedAt < IDLE_MS && flow.isFollowing(byId("flow"));
}

const PLACES = {
  form: (id) => { showTab("forms"); forms.reveal(byId("forms"), id); },
  message: showMessage,
  roster: (name) => { showTab("health"); roster.reveal(byId("roster"), name); },
  reply: (message) => { showTab("flow"); composer.reply(byId("composer"), message); },
  write: (scope) => { showTab("flow"); composer.aim(byId("composer"), scope); },
  dismiss: (id) => dismissed.add(id),
  "caught-up": () => settleDebt(seat.debt, model),
  rate: openRate,
  budgets: (of) => budgets.show(byId("budgets"), of),
  help: () => byId("help").showModal(),
  look: lookBack,
  live: backToLive,
};

function showMessage(id) {
  showTab("flow");
  if (flow.reveal(byId("flow"), id)) dismissed.add(`mention:${id}`); // it was seen
  else toast("That message is not on this page any more; the export has it.", "refused");
}

function go(where, what) {
  PLACES[where]?.(what);
  plan();
}

// ---- the past ---------------------------------------------------------------------------------------------------

const AT_LINK = "#at=";
const ADDRESS_MS = 500; // browsers take no more than so many changes of the address

/** Look at the room as it was, ms, or without a moment at the latest of it. */
function lookBack(ms = Infinity) {
  if (record) return seek(past, ms);
  if (!isLookingBack(past)) endBefore = null;
  announce("Replay: the room as it was. Nothing can be done in it.");
  return void lookAt(past, ms);
}

function backToLive() {
  if (record || !isLookingBack(past)) return;
  goLive(past);
  history.replaceState(null, "", location.pathname + location.search);
  announce("The present again.");
}

/** The moment that the address names, ms; null: it names none. */
function momentOfAddress() {
  const ms = location.hash.startsWith(AT_LINK) ? Date.parse(location.hash.slice(AT_LINK.length)) : NaN;
  return Number.isNaN(ms) ? null : ms;
}

function readAddress() {
  const ms = momentOfAddress();
  const { replay, state } = past;
  if (ms === null || (state === "shown" && Math.abs(ms - past.ms) < 1)) return;
  if (state === "shown" && ms >= replay.from && ms <= replay.to) seek(past, ms);
  else lookBack(ms);
}

setInterval(() => {
  if (past.state !== "shown" || past.isPlaying || (record && past.ms >= past.replay.to)) return;
  const address = AT_LINK + new Date(past.ms).toISOString();
  if (location.hash !== address && (location.hash === "" || location.hash.startsWith(AT_LINK))) history.replaceState(null, "", address);
}, ADDRESS_MS);

byId("replay-open").addEventListener("click", () => (isLookingBack(past) ? backToLive() : lookBack()));
addEventListener("hashchange", readAddress);

// ---- news: toasts, and what a screen reader is told -------------------------------------------------------------

let toldNotices = 0;
let told = { mode: null, open: false, deed: null };

function tellNews() {
  for (const notice of model.notices) if (notice.n > toldNotices) toast(notice.text, notice.tone);
  toldNotices = model.noticeCount;
  const fresh = attention.call(seat.needs, { sound: pref("sound"), notify: pref("notify") });
  const [deed] = seat.deeds.list;
  const deedKey = deed && deed.state !== "asked" ? `${deed.n} ${deed.state}` : told.deed;
  if (told.open !== isOpen(model)) announce(isOpen(model) ? "Connected to the hub." : "The line to the hub is lost.");
  else if (model.mode && told.mode !== model.mode) announce(`The room is ${model.mode}.`);
  else if (fresh.length) announce(attention.wordsOf(fresh[0]));
  else if (deedKey !== told.deed) announce(`${deed.word}: ${wordsOfDeed(deed, Date.now())}`);
  told = { mode: model.mode, open: isOpen(model), deed: deedKey };
}

// ---- token ------------------------------------------------------------------------------------------------------

function askForToken({ state, refused }) {
  const dialog = byId("token-dialog");
  if (state === "open") dialog.close();
  if (state !== "needs-token") return;
  byId("token-refused").hidden = !refused;
  setText(byId("token-refused"), refused ? "The hub does not know this token." : "");
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
  location.reload(); // nothing of the room stays on the page
});
byId("retry").addEventListener("click", () => line.retryNow());
addEventListener("online", () => line.retryNow());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) line.retryNow();
});

// ---- the rate ---------------------------------------------------------------------------------------------------

function openRate() {
  if (!isOperator(model) || byId("rate-dialog").open) return;
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

for (const link of document.querySelectorAll("[data-export]")) {
  link.addEventListener("click", async (event) => {
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

function showTheme() {
  const theme = Object.hasOwn(THEMES, pref("theme")) ? pref("theme") : "auto";
  document.documentElement.dataset.theme = theme;
  setIcon(byId("theme"), theme);
  const label = `Theme: ${theme === "auto" ? "as the system" : theme}`;
  byId("theme").setAttribute("aria-label", label);
  byId("theme").title = `${label} (t)`;
}

function nextTheme() {
  setPref("theme", THEMES[document.documentElement.dataset.theme]);
  showTheme();
}

// ---- keyboard ---------------------------------------------------------------------------------------------------

const KEYS = [
  ["n", "Go to what needs you first", () => (document.querySelector("#attention .need button") ?? byId("flow")).focus()],
  ["m", "Write a message", () => goTo("flow", document.querySelector("#composer textarea"))],
  ["a", "Choose whom the message is for", () => goTo("flow", byId("target"))],
  ["l", "Go to the latest message and follow", () => { flow.follow(byId("flow")); goTo("flow", byId("flow")); }],
  ["/", "Search the conversation", () => { showTab("flow"); tools.focusSearch(); }],
  ["d", "Go to a time", () => { showTab("flow"); tools.askTime(); }],
  ...flow.KEYS.map(([key, text, run]) => [key, text, () => { showTab("flow"); run(byId("flow")); }]),
  ["f", "Go to the first form that waits", () => { showTab("forms"); if (!forms.reveal(byId("forms"))) byId("forms-title").focus(); }],
  ["h", "Go to the room's health", () => goTo("health", byId("health-title"))],
  ["g", "Go to the peers", () => goTo("health", byId("peers-title"))],
  ["c", "Go to the channels", () => goTo("channels", byId("channels-title"))],
  ["w", "What became of your orders", () => document.querySelector(".orders-more:not([hidden])")?.click()],
  ["Shift P", "Pause, or resume", () => brakes.press("Shift P")],
  ["Shift S", "Stop all (asks first)", () => brakes.press("Shift S")],
  ["Shift R", "Reset a stopped room (asks first)", () => brakes.press("Shift R")],
  ["b", "Look back: replay; and back to the present", () => (isLookingBack(past) ? backToLive() : lookBack())],
  ["[", "In the replay: to the mark before", () => timeline.jump(past, -1)],
  ["]", "In the replay: to the next mark", () => timeline.jump(past, 1)],
  [".", "In the replay: play, or hold", () => timeline.toggle(past)],
  ["t", "Change the theme", nextTheme],
  [",", "Settings, and the house rules", () => { byId("settings").showModal(); plan(); }],
  ["?", "Show this map", () => byId("help").showModal()],
];
const FIXED_KEYS = [
  ["Enter", "In the composer: send"],
  ["Shift Enter", "In the composer: new line"],
  ["↑ ↓", "In the composer: what you said before"],
  ["@ # /", "In the composer: peers, channels, commands; Tab takes one"],
  ["Ctrl Enter", "In a form: next question, or send"],
  ["Enter", "In the flow: to the newest message; on a message: who has it"],
  ["Esc", "Leave a field, a dialog, or a thread; in the composer: drop the answer"],
];

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented || document.querySelector("dialog[open]")) return;
  const typing = event.target.closest("input:not([type=radio], [type=checkbox]), textarea, select");
  if (typing) {
    if (event.key === "Escape") typing.blur();
    return;
  }
  if (event.key === "Enter" && flow.onEnter(byId("flow"), event.target)) return event.preventDefault();
  if (event.key === "Escape" && !document.querySelector("[popover]:popover-open") && flow.leaveThread(byId("flow"))) return event.preventDefault();
  const pressed = event.shiftKey && /^[a-z]$/i.test(event.key) ? `Shift ${event.key.toUpperCase()}` : event.key;
  const binding = pref("keys") ? KEYS.find(([key]) => key === pressed) : undefined;
  if (!binding) return;
  event.preventDefault();
  binding[2]();
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
byId("budgets-open").addEventListener("click", () => go("budgets"));
byId("theme").addEventListener("click", nextTheme);
document.addEventListener("keydown", onKey);
settings.render(byId("settings-list"));
wireAsk();
showTheme();
onPref(plan);
setInterval(plan, TICK_MS);
if (record) openFile(past, JSON.parse(record.textContent), momentOfAddress() ?? Infinity);
else readAddress();
plan();
