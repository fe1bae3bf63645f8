// Timeline: the slider under the conversation, by which one goes through the past, and the banner that says that it is the past.

import { announce, button, el, icon, keyed, setAttribute, setIcon, setText } from "./dom.js";
import { ageText } from "./model.js";
import { SPEEDS, play, seek, shareRead } from "./past.js";
import { pref } from "./prefs.js";
import { lengthOf, markAt, markFrom, msOf, xOf } from "./replay.js";

const DAY_MS = 86_400_000;
const SLOTS = 300; // of marks along the slider: where several meet, the gravest is drawn
const GRAVITY = ["stop", "kick", "restart", "loop", "form", "decision", "pause", "go", "departure", "arrival"]; // gravest first
const SKIP_SHOWN_MS = 4_000;
const [STEP_MS, STEPS] = [100, 2_000]; // of the slider: so fine at most, and so many at most

const views = new WeakMap();

/** `needs`: how many things need the operator now; `since`: how many entries came while one looked back; `trouble`: what is wrong in the present. */
export function render(root, past, { needs, since, trouble, go, now }) {
  const view = views.get(root) ?? open(root, past, go);
  const { replay, state } = past;
  const isHere = state !== "live";
  root.hidden = !isHere;
  view.banner.hidden = !isHere;
  if (!isHere) return;
  const isShown = state === "shown";
  drawBanner(view, past, needs, since, trouble);
  for (const control of view.controls) control.disabled = !isShown;
  view.range.disabled = !isShown;
  const step = Math.max(STEP_MS, Math.ceil(lengthOf(replay) / STEPS));
  setAttribute(view.range, "step", String(step));
  setAttribute(view.range, "max", String(Math.max(1, Math.ceil(lengthOf(replay) / step)) * step));
  const place = Math.round(xOf(replay, past.ms) / step) * step;
  if (isShown && Number(view.range.value) !== place) view.range.value = String(place);
  root.dataset.at = isShown ? String(Math.round(past.ms)) : "";
  setAttribute(view.range, "aria-valuetext", isShown ? momentText(past.ms) : "");
  drawMarks(view, replay);
  drawButtons(view, past);
  setText(view.words, wordsOf(past, now));
}

function drawBanner(view, past, needs, since, trouble) {
  const { state, replay, ms, isFile } = past;
  const of = isFile ? `Record${replay.channel ? ` of ${replay.channel}` : ""}: ` : "Replay: ";
  const texts = {
    loading: ["", `reading the past, ${Math.round(100 * shareRead(past))} %`],
    shown: ["the room as it was on ", `${momentText(ms)}. Read-only.`],
    none: ["", `${past.why}.`],
  };
  for (const [at, text] of [state === "none" ? "No replay: " : of, ...texts[state]].entries()) setText(view.bannerText.children[at], text);
  view.live.hidden = isFile;
  view.again.hidden = state !== "none" && !past.isCut;
  const news = [since > 0 && `${since.toLocaleString()} new`, needs > 0 && `${needs} need${needs === 1 ? "s" : ""} you`, trouble].filter(Boolean).join(", ");
  setText(view.liveNews, news);
}

function wordsOf(past, now) {
  if (past.state !== "shown") return "";
  if (past.skipped && now - past.skipped.at < SKIP_SHOWN_MS) return `Skipped ${ageText(past.skipped.ms / 1000)} of silence`;
  if (past.isCut) return `The rest could not be read: ${past.why}.`;
  if (past.why) return past.why;
  const mark = markAt(past.replay, past.ms);
  return mark ? mark.text : "";
}

function drawButtons(view, past) {
  const { replay, ms, isPlaying, speed } = past;
  if (view.isPlaying !== isPlaying) {
    view.isPlaying = isPlaying;
    setIcon(view.play, isPlaying ? "pause" : "play");
    view.play.setAttribute("aria-label", isPlaying ? "Hold (.)" : "Play (.)");
    view.play.title = isPlaying ? "Hold (.)" : "Play (.)";
  }
  for (const node of view.speeds.children) setAttribute(node, "aria-pressed", String(Number(node.dataset.speed) === speed));
  setText(view.time, past.state === "shown" ? momentText(ms) : "");
  const isShown = past.state === "shown";
  view.back.disabled = !isShown || !markFrom(replay, ms, -1);
  view.next.disabled = !isShown || !markFrom(replay, ms, 1);
  view.earlier.hidden = past.isFile || !(replay.from - replay.first > 1000);
  view.later.hidden = past.isFile || !(replay.last - replay.to > 1000);
}

function drawMarks(view, replay) {
  const key = `${replay.marks.length} ${lengthOf(replay)}`;
  if (view.markKey === key && view.of === replay) return;
  Object.assign(view, { markKey: key, of: replay });
  const slots = new Map();
  const length = Math.max(1, lengthOf(replay));
  for (const mark of replay.marks) {
    const slot = Math.round((xOf(replay, mark.ms) / length) * SLOTS);
    const other = slots.get(slot);
    if (!other || GRAVITY.indexOf(mark.kind) < GRAVITY.indexOf(other)) slots.set(slot, mark.kind);
  }
  keyed(view.marks, [...slots], ([slot, kind]) => `${slot} ${kind}`,
    ([slot, kind]) => el("span", { data: { kind }, style: { left: `${(slot / SLOTS) * 100}%` } }));
}

function open(root, past, go) {
  const view = { of: null, markKey: "", isPlaying: null, banner: document.getElementById("past-banner"),
    marks: el("div", { class: "time-marks", "aria-hidden": "true" }), time: el("time", { class: "time-now" }), words: el("p", { class: "time-words", dir: "auto" }),
    bannerText: el("p", { class: "past-text" }, el("span"), el("span", { class: "past-words" }), el("span")), liveNews: el("span", { class: "live-news" }) };
  view.range = el("input", { type: "range", min: "0", max: "1", step: "1", value: "0", "aria-label": "The moment that is shown",
    oninput: () => seek(past, msOf(past.replay, Number(view.range.value))) });
  view.play = button("Play (.)", "play", { class: "time-play", onclick: () => toggle(past) }, true);
  view.back = button("The mark before ([)", "back", { onclick: () => jump(past, -1) }, true);
  view.next = button("The next mark (])", "next", { onclick: () => jump(past, 1) }, true);
  view.speeds = el("div", { class: "time-speeds", role: "group", "aria-label": "How fast" },
    ...SPEEDS.map((speed) => el("button", { type: "button", class: "quiet", data: { speed: String(speed) }, onclick: () => { past.speed = speed; past.changed(); } }, `${speed}×`)));
  view.earlier = button("Earlier", null, { class: "quiet", title: "The day before", onclick: () => go("look", past.replay.from - DAY_MS / 2 + 1) });
  view.later = button("Later", null, { class: "quiet", title: "The day after", onclick: () => go("look", past.replay.to + DAY_MS / 2 - 1) });
  view.controls = [view.play, ...view.speeds.children, view.earlier, view.later];
  root.append(el("div", { class: "time-track" }, view.marks, view.range),
    el("div", { class: "time-row" }, view.back, view.play, view.next, view.speeds, view.time, view.words, view.earlier, view.later));
  view.live = el("button", { type: "button", class: "strong live", title: "Back to the present (b)", onclick: () => go("live") }, icon("bolt"), "Live", view.liveNews);
  view.again = button("Try again", null, { class: "again", onclick: () => go("again") });
  view.banner.append(icon("wait"), view.bannerText, view.again, view.live);
  views.set(root, view);
  return view;
}

/** Play, or hold. */
export function toggle(past) {
  play(past, !past.isPlaying, performance.now());
}

/** Go to the next (1) or the previous (-1) mark. */
export function jump(past, step) {
  const mark = past.state === "shown" ? markFrom(past.replay, past.ms, step) : undefined;
  if (!mark) return;
  seek(past, mark.ms);
  announce(`${momentText(mark.ms)}: ${mark.text}`);
}

/** A moment in words, in the zone that the reader prefers; with the year, if it is another one. */
function momentText(ms) {
  const year = new Date(ms).getFullYear() === new Date().getFullYear() ? undefined : "numeric";
  return new Date(ms).toLocaleString([], { weekday: "short", year, day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit",
    hourCycle: "h23", timeZone: pref("utc") ? "UTC" : undefined, timeZoneName: pref("utc") ? "short" : undefined });
}
