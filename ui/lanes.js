// Lanes: the picture of the conversation. A lane per peer and channel, an arrow per message, time running down; what lasted
// (a stop, a pause, a stick, a form, a loop) is drawn along its time. Hover shows a message, a click goes to it in the transcript;
// a click on a lane's name shows that lane alone. What is not shown in the transcript is drawn faintly.
// It follows the transcript: the bracket at the left is what the transcript shows.

import { announce, el, setAttribute, setText } from "./dom.js";
import * as flow from "./flow.js";
import { clockText } from "./message.js";
import { ARROW, entryAt, hueOf, isHeld, lineOf, logEnd } from "./model.js";
import { emptyPicture, extend, heightOf, indexesBetween, lanesOf, nearest, strokesOf, yAt, yOf } from "./picture.js";
import { isMuted, isOnly, mutesOf } from "./only.js";
import { onPref, pref, setPref } from "./prefs.js";
import { SLANT, spreadOf } from "./spread.js";

const NAMES = 600; // their weight
const NAME_PX = { flat: 11, slanted: 11, upright: 10 };
const REACH_PX = 8; // of the pointer
const LABEL_GAP_PX = 26; // between two times
const EXCERPT = 280;
const FAINT = 0.15;

const views = new WeakMap();

export function render(root, model, send, now, seat) {
  const view = views.get(root) ?? open(root);
  view.seat = seat ?? view.seat;
  if (view.model !== model) { // the past, or the present again
    Object.assign(view, { picture: emptyPicture(), hover: -1, isDirty: true });
    view.tip.hidden = true;
  }
  view.model = model;
  if (root.clientWidth === 0) return; // not on the screen
  const moved = extend(view.picture, model);
  const window = flow.windowOf();
  const state = [logEnd(model), window?.join(), view.hover, root.clientWidth, root.clientHeight, Math.floor(now / 1000), flow.isFollowing(), model.peers.length, pref("utc"), flow.filterOf().alone, pref("mutes")].join();
  if (state === view.state && view.spans === model.spans && view.loops === model.loops && view.channels === model.channels && !moved && !view.isDirty) return;
  Object.assign(view, { only: flow.filterOf().alone, mutes: mutesOf(pref("mutes")) });
  Object.assign(view, { state, spans: model.spans, loops: model.loops, channels: model.channels, window, now, isDirty: false });
  arrange(view);
  if (moved) view.scroller.scrollTop -= moved;
  lead(view);
  paint(view);
}

function open(root) {
  const view = {
    root, model: null, picture: emptyPicture(), lanes: [], ...spreadOf(0, []), lengths: new Map(), hover: -1, isPointed: false, isDirty: true, colours: new Map(), ink: "", led: "",
    canvas: el("canvas", { class: "lanes-canvas", role: "img" }),
    space: el("div", { class: "lanes-space" }),
    probe: el("span", { class: "name unseen", "aria-hidden": "true" }),
    tip: el("div", { class: "lanes-tip", hidden: true }),
    tipHead: el("p", { class: "lanes-tip-head" }), tipText: el("p", { class: "lanes-tip-text", dir: "auto" }),
  };
  view.tip.append(view.tipHead, view.tipText);
  view.scroller = el("div", { class: "lanes-scroller", tabindex: "0", role: "region", "aria-label": "The picture of the conversation. Arrow keys go from message to message, Enter shows one in the transcript." }, view.canvas, view.space);
  root.append(view.scroller, view.tip, view.probe);
  view.brush = view.canvas.getContext("2d");
  const redraw = () => { view.isDirty = true; if (view.model) render(root, view.model, null, Date.now()); };
  view.scroller.addEventListener("scroll", redraw, { passive: true });
  view.scroller.addEventListener("pointermove", (event) => point(view, event));
  view.scroller.addEventListener("pointerleave", () => { view.isPointed = false; hover(view, -1); });
  view.scroller.addEventListener("click", (event) => (view.hover < 0 ? openLane(view, event) : goTo(view)));
  view.scroller.addEventListener("keydown", (event) => onKey(view, event));
  view.scroller.addEventListener("blur", () => hover(view, -1));
  new ResizeObserver(redraw).observe(root);
  document.getElementById("flow").addEventListener("scroll", () => requestAnimationFrame(redraw), { passive: true }); // the bracket goes along
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  onPref(() => requestAnimationFrame(redraw)); // the theme, the view, UTC: when the page has taken it
  views.set(root, view);
  return view;
}

// ---- where things are -------------------------------------------------------------------------------------------

function arrange(view) {
  const { scroller, space, canvas, root } = view;
  view.lanes = lanesOf(view.picture, view.model);
  const [width, height] = [scroller.clientWidth, scroller.clientHeight];
  Object.assign(view, spreadOf(width, view.lanes.map((lane) => lengthOf(view, lane.label))));
  view.xs = new Map(view.lanes.map((lane, place) => [lane.key, view.axis + (place + 0.5) * view.gap]));
  space.style.setProperty("width", `${Math.floor(view.axis + view.lanes.length * view.gap + view.tail)}px`);
  space.style.setProperty("height", `${Math.max(0, heightOf(view.picture) + view.head - height)}px`); // the canvas itself fills one window
  const scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.setProperty("width", `${width}px`);
    canvas.style.setProperty("height", `${height}px`);
  }
  Object.assign(view, { width, height, scale });
  const label = `${view.lanes.length} lanes: ${view.lanes.map((lane) => lane.label).join(", ").slice(0, 400)}.${barredText(view.model)} The transcript tells the same in words.`;
  if (canvas.getAttribute("aria-label") !== label) canvas.setAttribute("aria-label", label);
  root.dataset.lanes = String(view.lanes.length);
  root.dataset.spread = view.kind;
}

/** The length of a name, px; measured once. */
function lengthOf({ lengths, brush, scroller }, label) {
  if (!lengths.has(label)) {
    brush.font = `${NAMES} ${NAME_PX.slanted}px ${getComputedStyle(scroller).fontFamily}`;
    lengths.set(label, brush.measureText(plain(label)).width);
  }
  return lengths.get(label);
}

function barredText({ loops }) {
  const held = loops.lanes.filter(({ state }) => state === "held").map(({ lane }) => lane);
  return held.length ? ` Held: ${held.join(", ").slice(0, 400)}.` : "";
}

/** Keep what the transcript shows in the picture, unless somebody is at work in the picture itself. */
function lead(view) {
  const { scroller, picture, window } = view;
  const key = `${window?.join()} ${flow.isFollowing()} ${picture.ys.length} ${view.height}`;
  if (view.isPointed || scroller === document.activeElement || key === view.led) return;
  view.led = key;
  if (flow.isFollowing()) scroller.scrollTop = scroller.scrollHeight;
  else if (window) {
    const [top, bottom] = window.map((index) => yAt(picture, index));
    const room = view.height - view.head;
    if (top < scroller.scrollTop || bottom > scroller.scrollTop + room) scroller.scrollTop = (top + bottom) / 2 - room / 2;
  }
}

/** From the canvas to the picture. */
const yIn = (view, y) => y - view.head + view.scroller.scrollTop;

// ---- painting ---------------------------------------------------------------------------------------------------

/** A colour of the style sheet, as the canvas understands it. */
function colour(view, name, hue = null) {
  const key = `${name} ${hue}`;
  if (!view.colours.has(key)) {
    if (hue !== null) view.probe.style.setProperty("--hue", String(hue));
    view.probe.style.setProperty("color", hue === null ? `var(${name})` : "var(--who)");
    view.colours.set(key, getComputedStyle(view.probe).color);
  }
  return view.colours.get(key);
}

function laneColour(view, key) {
  if (key === "operator") return colour(view, "--operator");
  if (key?.startsWith("=")) return colour(view, "--who", hueOf(view.model, key.slice(1)));
  return colour(view, "--soft");
}

function paint(view) {
  const { brush, scale, width, height, scroller, picture } = view;
  view.probe.style.setProperty("color", "var(--ink)");
  const ink = getComputedStyle(view.probe).color;
  if (ink !== view.ink) view.colours.clear(); // another theme
  view.ink = ink;
  const font = getComputedStyle(scroller).fontFamily;
  brush.setTransform(scale, 0, 0, scale, 0, 0);
  brush.clearRect(0, 0, width, height);
  brush.save();
  brush.beginPath();
  brush.rect(0, view.head, width, height - view.head);
  brush.clip();
  brush.translate(-scroller.scrollLeft, view.head - scroller.scrollTop);
  const [top, bottom] = [scroller.scrollTop, scroller.scrollTop + height - view.head];
  paintModes(view, top, bottom, font);
  paintLanes(view, top, bottom);
  paintSpans(view, top, bottom);
  const [first, end] = indexesBetween(picture, top - 20, bottom + 20);
  for (let index = first; index < end; index += 1) {
    const message = entryAt(view.model, index);
    brush.globalAlpha = isFaint(view, message) ? FAINT : 1;
    paintMessage(view, message, yAt(picture, index), index === view.hover);
  }
  brush.globalAlpha = 1;
  brush.restore();
  paintAxis(view, first, end, font);
  paintNames(view, font);
}

/** Whether the transcript leaves it out, for something else is looked at alone, or it is muted. */
const isFaint = ({ only, mutes }, message) => (only ? !isOnly(message, only) : isMuted(message, mutes));

const clip = (from, to, top, bottom) => [Math.max(from, top - 10), Math.min(to, bottom + 10)];

/** Where a span lies; what still lasts reaches to the end. */
const reachOf = (view, span) => [yOf(view.picture, span.from), span.to === null ? heightOf(view.picture) : yOf(view.picture, span.to)];

function paintModes(view, top, bottom, font) {
  const { brush, width, scroller } = view;
  for (const span of view.model.spans.filter(({ kind }) => kind === "mode")) {
    const [from, to] = clip(...reachOf(view, span), top, bottom);
    if (to <= from - 1) continue;
    brush.fillStyle = colour(view, span.word === "stopped" ? "--halt-wash" : "--hold-wash");
    brush.fillRect(scroller.scrollLeft + view.axis - 6, from, width, Math.max(2, to - from));
    brush.fillStyle = colour(view, span.word === "stopped" ? "--halt" : "--hold");
    brush.font = `600 10px ${font}`;
    brush.textAlign = "right";
    brush.textBaseline = "top";
    if (to - from > 11) brush.fillText(span.word, scroller.scrollLeft + width - 4, from + 1);
    brush.fillRect(scroller.scrollLeft + view.axis - 6, from, width, 1);
  }
}

/** The lanes in sight, and those whose slanted names reach into it: of thousands, a few dozen. */
function lanesInSight({ lanes, gap, axis, head, scroller, width }) {
  const left = scroller.scrollLeft - axis;
  return lanes.slice(Math.max(0, Math.floor((left - head) / gap)), Math.max(0, Math.ceil((left + width) / gap)) + 1);
}

function paintLanes(view, top, bottom) {
  const { brush } = view;
  brush.lineWidth = 1;
  for (const lane of lanesInSight(view)) {
    brush.globalAlpha = lane.kind === "peer" || lane.kind === "operator" ? 0.4 : 0.6;
    brush.strokeStyle = lane.kind === "peer" || lane.kind === "operator" ? laneColour(view, lane.key) : colour(view, "--line");
    line(brush, view.xs.get(lane.key), top, view.xs.get(lane.key), bottom);
  }
  brush.globalAlpha = 1;
}

const SPANS = {
  // a held mailbox: the lane is broken
  pause: (view, span, x, from, to) => {
    view.brush.setLineDash([2, 4]);
    view.brush.strokeStyle = colour(view, "--hold");
    view.brush.lineWidth = 5;
    line(view.brush, x, from, x, to);
  },
  // the talking stick: a bar on its holder's lane
  stick: (view, span, x, from, to) => {
    view.brush.strokeStyle = laneColour(view, `=${span.who}`);
    view.brush.globalAlpha = 0.45;
    view.brush.lineWidth = 7;
    view.brush.lineCap = "round";
    line(view.brush, x, from, x, Math.max(from + 1, to));
  },
  // a loop: the way between two, or a channel's lane, is barred, and a word says how
  loop: (view, span, x, from, to) => {
    const [left, right] = barOf(view, span);
    const { brush } = view;
    brush.fillStyle = colour(view, "--hold");
    brush.globalAlpha = span.word === "slowed" ? 0.08 : 0.18;
    brush.fillRect(left, from, right - left, Math.max(2, to - from));
    brush.globalAlpha = 1;
    brush.strokeStyle = colour(view, "--hold");
    brush.setLineDash(span.word === "slowed" ? [1, 4] : [3, 3]);
    brush.lineWidth = 1.5;
    brush.strokeRect(left, from, right - left, Math.max(2, to - from));
    brush.fillStyle = colour(view, "--hold");
    brush.font = `600 10px ${getComputedStyle(view.scroller).fontFamily}`;
    brush.textAlign = "center";
    brush.textBaseline = "bottom";
    brush.fillText(span.word, (left + right) / 2, from - 1);
  },
  // a form: it waits at the operator's lane from the question to the answer
  form: (view, span, x, from, to) => {
    const at = view.xs.get("operator");
    view.brush.setLineDash([4, 3]);
    view.brush.strokeStyle = colour(view, "--operator");
    view.brush.lineWidth = 2.5;
    line(view.brush, at, from, at, to);
    view.brush.setLineDash([]);
    square(view, at, from, colour(view, "--operator"), false);
    if (span.to !== null) square(view, at, to, colour(view, "--operator"), true);
  },
};

const BAR_PX = 7; // beside the lanes that a loop bars

/** From where to where a loop bars the picture, sideways; null while no lane of it is there. */
function barOf({ xs }, { scope }) {
  const ends = scope.split(ARROW).map((name) => xs.get(scope.includes(ARROW) ? `=${name}` : scope)).filter((x) => x !== undefined);
  return ends.length ? [Math.min(...ends) - BAR_PX, Math.max(...ends) + BAR_PX] : null;
}

function placeOf(view, span) {
  if (span.kind === "loop") return barOf(view, span)?.[0] ?? null;
  return view.xs.get(`=${span.who}`) ?? (span.kind === "form" ? 0 : null);
}

function paintSpans(view, top, bottom) {
  for (const span of view.model.spans) {
    if (!Object.hasOwn(SPANS, span.kind)) continue;
    const x = placeOf(view, span);
    const [from, to] = reachOf(view, span);
    if (x === null || to < top - 10 || from > bottom + 10) continue;
    view.brush.save();
    SPANS[span.kind](view, span, x, Math.max(from, top - 20), Math.min(to, bottom + 20));
    view.brush.restore();
  }
}

function paintMessage(view, message, y, isHover) {
  const { brush, xs } = view;
  const [from, to] = strokesOf(message);
  if (isHover) {
    brush.fillStyle = colour(view, "--operator-wash");
    brush.fillRect(view.scroller.scrollLeft, y - 5, view.width, 10);
  }
  if (to === null) {
    brush.fillStyle = colour(view, message.kind === "marker" ? "--halt" : "--soft");
    brush.fillRect(view.scroller.scrollLeft + view.axis - 6, y - 0.5, 5, 1); // a notice: a tick on the axis
    return;
  }
  const [x, goal] = [xs.get(from), xs.get(to)];
  const own = laneColour(view, from);
  brush.strokeStyle = brush.fillStyle = own;
  if (from === null || x === undefined) {
    if (goal !== undefined) ring(brush, goal, y, 2.5); // the hub's own words
    return;
  }
  if (goal !== undefined && goal !== x && isHeld(view.model, message)) barred(brush, x, (x + goal) / 2, y);
  else if (goal !== undefined && goal !== x) arrow(brush, x, goal, y, to === "all" ? [1, 3] : to.startsWith("=") ? [] : [5, 2]);
  if (message.kind === "answer") square(view, x, y, own, true);
  else if (message.kind === "control") diamond(brush, x, y, 4);
  else dot(brush, x, y, isHover ? 4.5 : goal === x ? 4 : 3.2);
}

function line(brush, x1, y1, x2, y2) {
  brush.beginPath();
  brush.moveTo(x1, y1);
  brush.lineTo(x2, y2);
  brush.stroke();
}

function dot(brush, x, y, size) {
  brush.beginPath();
  brush.arc(x, y, size, 0, Math.PI * 2);
  brush.fill();
}

function ring(brush, x, y, size) {
  brush.lineWidth = 1;
  brush.beginPath();
  brush.arc(x, y, size, 0, Math.PI * 2);
  brush.stroke();
}

function diamond(brush, x, y, size) {
  brush.beginPath();
  brush.moveTo(x, y - size);
  brush.lineTo(x + size, y);
  brush.lineTo(x, y + size);
  brush.lineTo(x - size, y);
  brush.fill();
}

function square({ brush }, x, y, ink, isFull) {
  brush.lineWidth = 1.5;
  brush.strokeStyle = brush.fillStyle = ink;
  if (isFull) brush.fillRect(x - 4, y - 4, 8, 8);
  else brush.strokeRect(x - 3.5, y - 3.5, 7, 7);
}

/** What waits in a held lane goes half the way. */
function barred(brush, x, end, y) {
  brush.lineWidth = 1.25;
  line(brush, x, y, end, y);
  brush.lineWidth = 2.5;
  line(brush, end, y - 4, end, y + 4);
}

/** To one peer whole, to a channel dashed, to everyone dotted: not by colour alone. */
function arrow(brush, x, goal, y, dash) {
  const way = Math.sign(goal - x);
  brush.lineWidth = 1.25;
  brush.setLineDash(dash);
  line(brush, x, y, goal - way * 2, y);
  brush.setLineDash([]);
  brush.beginPath();
  brush.moveTo(goal - way * 1, y);
  brush.lineTo(goal - way * 6, y - 3);
  brush.lineTo(goal - way * 6, y + 3);
  brush.fill();
}

function paintAxis(view, first, end, font) {
  const { brush, picture, scroller, window, height } = view;
  brush.fillStyle = colour(view, "--surface");
  brush.fillRect(0, view.head, view.axis - 7, height);
  brush.font = `10px ${font}`;
  brush.textAlign = "left";
  brush.textBaseline = "middle";
  brush.fillStyle = colour(view, "--soft");
  let [last, minute] = [-LABEL_GAP_PX, ""];
  for (let index = view.kind === "rail" ? end : first; index < end; index += 1) {
    const y = yAt(picture, index) - scroller.scrollTop + view.head;
    const text = clockText(entryAt(view.model, index).ts * 1000, pref("utc")).slice(0, 5);
    if (text === minute || y - last < LABEL_GAP_PX || y < view.head + 6) continue;
    brush.fillText(text, 11, y);
    [last, minute] = [y, text];
  }
  if (!window) return;
  const [top, bottom] = window.map((index) => yAt(picture, index) - scroller.scrollTop + view.head);
  brush.strokeStyle = colour(view, "--operator");
  brush.lineWidth = 2;
  brush.save();
  brush.beginPath();
  brush.rect(0, view.head, view.axis, height);
  brush.clip();
  brush.beginPath();
  brush.moveTo(7, top - 5);
  for (const [x, y] of [[2, top - 5], [2, bottom + 5], [7, bottom + 5]]) brush.lineTo(x, y);
  brush.stroke();
  brush.restore();
}

function paintNames(view, font) {
  const { brush, width, xs, scroller } = view;
  brush.fillStyle = colour(view, "--surface");
  brush.fillRect(0, 0, width, view.head);
  brush.fillStyle = colour(view, "--line");
  brush.fillRect(0, view.head - 1, width, 1);
  if (view.kind === "rail") return;
  brush.font = `${NAMES} ${NAME_PX[view.kind]}px ${font}`;
  brush.textAlign = view.kind === "flat" ? "center" : "left";
  brush.textBaseline = "middle";
  for (const lane of lanesInSight(view)) {
    brush.save();
    brush.translate(xs.get(lane.key) - scroller.scrollLeft, view.head - (view.kind === "flat" ? 12 : 6));
    if (view.kind !== "flat") brush.rotate(view.kind === "slanted" ? -SLANT : -Math.PI / 2);
    brush.fillStyle = laneColour(view, lane.key);
    brush.fillText(short(brush, lane.label, view.room), 0, 0);
    brush.restore();
  }
  paintBeyond(view, font);
}

/** How many lanes are out of sight, at the side where they are. */
function paintBeyond(view, font) {
  const { brush, width, scroller } = view;
  const places = [...view.xs.values()].map((x) => x - scroller.scrollLeft);
  const [before, after] = [places.filter((x) => x < 0).length, places.filter((x) => x > width).length];
  brush.font = `${NAMES} 10px ${font}`;
  for (const [count, text, x, align] of [[before, `\u2039 ${before}`, 2, "left"], [after, `${after} \u203a`, width - 2, "right"]]) {
    if (count === 0) continue;
    const length = brush.measureText(text).width + 4;
    brush.textAlign = align;
    brush.fillStyle = colour(view, "--surface");
    brush.fillRect(align === "left" ? 0 : width - length, 0, length, 14);
    brush.fillStyle = colour(view, "--soft");
    brush.fillText(text, x, 8);
  }
}

/** Without the marks that turn other letters around. */
const plain = (text) => text.replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "");

function short(brush, text, room) {
  const letters = [...plain(text)];
  if (brush.measureText(letters.join("")).width <= room) return letters.join("");
  while (letters.length && brush.measureText(`${letters.join("")}…`).width > room) letters.pop();
  return `${letters.join("")}…`;
}

// ---- the hand ---------------------------------------------------------------------------------------------------

function point(view, event) {
  const box = view.scroller.getBoundingClientRect();
  const y = event.clientY - box.top;
  view.isPointed = true;
  view.at = [event.clientX - box.left, y];
  hover(view, y < view.head ? -1 : nearest(view.picture, yIn(view, y), REACH_PX));
  const lane = view.hover < 0 ? laneAt(view, ...view.at) : undefined;
  setAttribute(view.scroller, "title", lane?.label ?? "");
  if (lane && y < view.head) view.scroller.dataset.pointing = "true";
}

/** The lane under the pointer: its title has the whole name, where that is cut or not written. A slanted name leans to the right. */
function laneAt({ lanes, axis, gap, head, kind, scroller }, x, y) {
  const lean = kind === "slanted" && y < head - 6 ? (head - 6 - y) / Math.tan(SLANT) : 0;
  return lanes[Math.floor((x - lean + scroller.scrollLeft - axis) / gap)];
}

/** Show the lane alone whose name is there. */
function openLane(view, event) {
  const box = view.scroller.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  const lane = y < view.head ? laneAt(view, x, y) : undefined;
  if (lane) view.seat.go("only", lane.key);
}

function hover(view, index) {
  const changed = view.hover !== index;
  view.hover = index;
  const message = index < 0 || !view.model ? undefined : entryAt(view.model, index);
  view.tip.hidden = !message;
  if (message) tell(view, message);
  view.scroller.dataset.pointing = String(Boolean(message));
  if (changed && view.model) render(view.root, view.model, null, Date.now());
}

const headOf = (message) => (strokesOf(message)[1] === null ? "the hub" : `${message.origin === "agent" ? message.sender : message.origin} to ${message.recipient}`);

function tell(view, message) {
  setText(view.tipHead, `${clockText(message.ts * 1000, pref("utc"))} · ${headOf(message)}`);
  setText(view.tipText, lineOf(message.content, EXCERPT));
  const y = view.at ? view.at[1] : yAt(view.picture, view.hover) - view.scroller.scrollTop + view.head;
  const isLow = y > view.height / 2;
  view.tip.style.setProperty("top", isLow ? "auto" : `${y + 14}px`);
  view.tip.style.setProperty("bottom", isLow ? `${view.height - y + 14}px` : "auto");
}

function goTo(view) {
  if (view.hover < 0) return;
  const { id } = entryAt(view.model, view.hover);
  if (pref("view") === "picture") setPref("view", "both");
  requestAnimationFrame(() => flow.reveal(id)); // when the transcript is there
}

const STEPS = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };

function onKey(view, event) {
  if (event.key === "Enter") return goTo(view);
  if (!Object.hasOwn(STEPS, event.key) || !view.picture.ys.length || event.ctrlKey || event.metaKey || event.altKey) return undefined;
  event.preventDefault();
  const { picture, scroller } = view;
  const last = picture.start + picture.ys.length - 1;
  const from = view.hover < 0 ? last + 1 : view.hover;
  const index = Math.min(last, Math.max(picture.start, from + STEPS[event.key]));
  const y = yAt(picture, index);
  view.at = null;
  if (y < scroller.scrollTop + 10 || y > scroller.scrollTop + view.height - view.head - 10) scroller.scrollTop = y - (view.height - view.head) / 2;
  hover(view, index);
  const message = entryAt(view.model, index);
  announce(`${headOf(message)}: ${lineOf(message.content, EXCERPT)}`);
  return undefined;
}
