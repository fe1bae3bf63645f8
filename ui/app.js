// The console, wired: socket > model > panels. Frames change the model at once; the page is drawn once per animation frame.

import { announce, el, keyed, saveAs, setIcon, setText, toast, wireAsk } from "./dom.js";
import { ageText, apply, applyLink, emptyModel, isOpen, isOperator, noteSent } from "./model.js";
import { fetchExport, openLine } from "./socket.js";
import * as flow from "./flow.js";
import * as roster from "./roster.js";
import * as brakes from "./brakes.js";
import * as channels from "./channels.js";
import * as forms from "./forms.js";
import * as composer from "./composer.js";

const HIDDEN_DRAW_MS = 1000; // a hidden tab gets no animation frames, but its title must tell of a new form
const TICK_MS = 1000; // ages and "since" count on without the hub

const byId = (id) => document.getElementById(id);
const model = emptyModel();

// ---- drawing ----------------------------------------------------------------------------------------------------

const PANELS = [
  ["brakes", brakes.render],
  ["health", roster.renderHealth],
  ["roster", roster.render],
  ["flow", flow.render],
  ["composer", composer.render],
  ["forms", forms.render],
  ["floors", channels.renderFloors],
  ["channels", channels.render],
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
  for (const [id, render] of PANELS) render(byId(id), model, send, now);
  drawLink(now);
  drawCounts();
  tellNews();
}

function drawCounts() {
  const counts = { peers: model.peers.length, channels: Object.keys(model.channels).length, forms: model.forms.length };
  for (const node of document.querySelectorAll("[data-count]")) setText(node, counts[node.dataset.count] ? String(counts[node.dataset.count]) : "");
  const waiting = model.forms.length ? `(${model.forms.length}) ` : "";
  const title = `${waiting}Caucus${model.mode && model.mode !== "running" ? ` · ${model.mode}` : ""}${isOpen(model) ? "" : " · disconnected"}`;
  if (document.title !== title) document.title = title;
}

// ---- the line to the hub ----------------------------------------------------------------------------------------

const line = openLine({
  onFrame: (frame) => { apply(model, frame, Date.now()); plan(); },
  onStatus: (status) => { applyLink(model, status); askForToken(status); plan(); },
});

function send(frame) {
  if (!isOperator(model) || !line.send(frame)) return false;
  noteSent(model, frame);
  plan();
  return true;
}

const clock = (ms) => new Date(ms).toLocaleTimeString([], { hourCycle: "h23" });

const LINK_WORDS = { open: "Connected", connecting: "Connecting…", closed: "Disconnected", "needs-token": "Token needed" };

function drawLink(now) {
  const { state, since, retryAt, reason, role, auth } = model.link;
  const connection = byId("connection");
  connection.dataset.state = state;
  document.body.dataset.link = state;
  document.body.dataset.role = role ?? "";
  document.body.toggleAttribute("data-known", model.mode !== null);
  setText(connection, state === "open" && role === "observer" ? "Connected, observing" : LINK_WORDS[state]);
  byId("forget-token").hidden = !(auth && state === "open");
  const lost = model.mode !== null || state === "closed"; // the very first try needs no alarm
  byId("banner").hidden = state === "open" || state === "needs-token" || !lost;
  const next = state === "connecting" ? "Reconnecting now…" : `Trying again in ${ageText(Math.max(1, (retryAt - now) / 1000))}.`;
  const stale = model.mode === null ? "" : " What you see is from then.";
  setText(byId("banner-text"), byId("banner").hidden ? "" : `No line to the hub since ${clock(since)} (${ageText((now - since) / 1000)}).${stale} ${reason ?? ""} ${next}`);
  byId("retry").disabled = state === "connecting";
}

// ---- news: toasts, and what a screen reader is told -------------------------------------------------------------

let toldNotices = 0;
let told = { mode: null, forms: new Set(), open: false };

function tellNews() {
  for (const notice of model.notices) if (notice.n > toldNotices) toast(notice.text, notice.tone);
  toldNotices = model.noticeCount;
  const first = model.forms.find((form) => !told.forms.has(form.id));
  if (model.mode && told.mode !== model.mode) announce(`The room is ${model.mode}.`);
  else if (first) announce(`${first.asker} asks: ${first.title}`);
  else if (told.open !== isOpen(model)) announce(isOpen(model) ? "Connected to the hub." : "The line to the hub is lost.");
  told = { mode: model.mode, forms: new Set(model.forms.map((form) => form.id)), open: isOpen(model) };
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

// ---- export -----------------------------------------------------------------------------------------------------

for (const link of document.querySelectorAll("[data-export]")) {
  link.addEventListener("click", async (event) => {
    if (!model.link.auth) return; // an open hub serves a plain link
    event.preventDefault();
    try {
      const { blob, name } = await fetchExport(link.dataset.export);
      saveAs(blob, name);
    } catch (failure) {
      toast(`The export failed: ${failure.message}.`, "refused");
    }
  });
}

// ---- theme ------------------------------------------------------------------------------------------------------

const THEME_KEY = "caucus.theme";
const THEMES = { auto: "light", light: "dark", dark: "auto" }; // theme -> the next one

function showTheme(theme) {
  document.documentElement.dataset.theme = theme;
  setIcon(byId("theme"), theme);
  const label = `Theme: ${theme === "auto" ? "as the system" : theme}`;
  byId("theme").setAttribute("aria-label", label);
  byId("theme").title = `${label} (t)`;
}

function nextTheme() {
  const theme = THEMES[document.documentElement.dataset.theme];
  localStorage.setItem(THEME_KEY, theme);
  showTheme(theme);
}

// ---- keyboard ---------------------------------------------------------------------------------------------------

const KEYS = [
  ["m", "Write a message", () => goTo("flow", document.querySelector("#composer textarea"))],
  ["l", "Go to the latest message and follow", () => { flow.follow(byId("flow")); goTo("flow", byId("flow")); }],
  ["f", "Go to the first form that waits", () => goTo("forms", document.querySelector("#forms form :is(input, textarea)") ?? byId("forms-title"))],
  ["g", "Go to the peers", () => goTo("peers", byId("peers-title"))],
  ["c", "Go to the channels", () => goTo("channels", byId("channels-title"))],
  ["p", "Pause, or resume", () => brakes.press("p")],
  ["s", "Stop all (asks first)", () => brakes.press("s")],
  ["r", "Reset a stopped room (asks first)", () => brakes.press("r")],
  ["t", "Change the theme", nextTheme],
  ["?", "Show this map", () => byId("help").showModal()],
];
const FIXED_KEYS = [
  ["Enter", "In the composer: send"],
  ["Shift Enter", "In the composer: new line"],
  ["↑", "In an empty composer: the last message again"],
  ["Esc", "Leave a field, close a dialog"],
];

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
  const typing = event.target.closest("input, textarea, select");
  if (typing) {
    if (event.key === "Escape") typing.blur();
    return;
  }
  const binding = KEYS.find(([key]) => key === event.key);
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
keyed(byId("help-keys"), [...KEYS, ...FIXED_KEYS], ([key]) => key, ([key, text]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, text)));
for (const node of document.querySelectorAll("[data-goto]")) node.addEventListener("click", () => showTab(node.dataset.goto));
byId("help-open").addEventListener("click", () => byId("help").showModal());
byId("help-close").addEventListener("click", () => byId("help").close());
byId("theme").addEventListener("click", nextTheme);
document.addEventListener("keydown", onKey);
wireAsk();
showTheme(Object.hasOwn(THEMES, localStorage.getItem(THEME_KEY) ?? "") ? localStorage.getItem(THEME_KEY) : "auto");
setInterval(plan, TICK_MS);
plan();
