// Message: one row of the flow. Time, origin and sender have places of their own, so no text can imitate what stands in them.

import { button, el, icon, nameTag, setText } from "./dom.js";
import { drawLine, drawText, drawTree } from "./markdown.js";
import { ageText, audienceOf, hueOf, lineOf, saidAs, threadOf } from "./model.js";
import { routeOf, wordsOfOnly } from "./only.js";
import { isMeant } from "./rows.js";
import { drawTick } from "./ticks.js";

const LONG_CHARS = 1_600;
const LONG_LINES = 32;

// Made once: making one costs more than a row.
const clockOf = (timeZone) => new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZone });
const dayOf = (timeZone) => new Intl.DateTimeFormat([], { weekday: "long", day: "numeric", month: "long", timeZone });
const fullOf = (timeZone) => new Intl.DateTimeFormat([], { dateStyle: "full", timeStyle: "long", timeZone });
const CLOCK = { local: clockOf(), utc: clockOf("UTC") };
const DAY = { local: dayOf(), utc: dayOf("UTC") };
const FULL = { local: fullOf(), utc: fullOf("UTC") };
const zone = (look) => (look.utc ? "utc" : "local");

export const clockText = (ms, utc) => CLOCK[utc ? "utc" : "local"].format(ms);

/** Whether a message is shown folded until the reader unfolds it. */
export const isLong = (message) => message.content.length > LONG_CHARS || message.content.split("\n", LONG_LINES + 1).length > LONG_LINES;

/** A guess of a row's height in px, before it was ever on the page. */
export function guessOf(item) {
  if (item.type !== "message") return 38;
  const { content } = item.message;
  const lines = Math.min(LONG_LINES, content.split("\n", LONG_LINES).reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / 70)), 0));
  return (item.goesOn ? 6 : 30) + lines * 22 + (item.message.reply_to ? 24 : 0);
}

/** Draw one row. `look`: {utc, needle, words, hereAt, isUnfolded(message), isSource(message), isEvidence(message), isCollapsed(thread)}. */
export function drawRow(model, item, look) {
  return ROWS[item.type](model, item, look);
}

const ROWS = {
  marker: (model, { message }) => el("li", { class: "marker" }, el("span", {}, message.content,
    message.isHole && button("Read them from the record", null, { class: "quiet", data: { hole: message.id } }))),
  day: (model, { ts }, look) => el("li", { class: "day" }, el("span", {}, DAY[zone(look)].format(ts * 1000), look.utc ? " (UTC)" : "")),
  gap: (model, { seconds }) => el("li", { class: "gap" }, el("span", {}, `${ageText(seconds)} of silence`)),
  here: (model, item, look) => el("li", { class: "here" }, el("span", {}, "You were here", look.hereAt ? ` until ${CLOCK[zone(look)].format(look.hereAt).slice(0, 5)}` : "")),
  fold: (model, { hidden, sender, start }) => el("li", { class: "fold" },
    el("button", { type: "button", class: "quiet", data: { unfoldBurst: String(start) } }, icon("next"), el("span", {}, `${hidden.length} more from `, sender === null ? "the hub" : nameTag(sender, hueOf(model, sender)), " in one breath"))),
  head: (model, item) => drawEdge(item),
  hole: (model, item) => drawEdge(item),
  message: drawMessage,
};

/** Where what is loaded of the record ends: what is beyond, and the way there. Its height stays, whatever it says. */
function drawEdge({ text, state, act, word }) {
  return el("li", { class: "record-edge", data: { state } }, state === "loading" && icon("wait"), el("span", {}, text),
    act && button(word, null, { class: "quiet", data: { record: act } }));
}

function drawMessage(model, item, look) {
  const { message, goesOn } = item;
  const audience = audienceOf(message);
  const folds = isLong(message);
  const isOpen = !folds || look.isUnfolded(message);
  const isHit = isMeant(message, look.needle);
  return el("li", {
    class: `message${goesOn ? " goes-on" : ""}${folds ? " long" : ""}${isHit ? " hit" : ""}${look.isEvidence(message) ? " evidence" : ""}`,
    tabindex: "-1",
    data: { seq: String(message.seq), id: message.id, kind: message.kind, origin: message.origin ?? "agent", audience, ...(folds && { open: String(isOpen) }) },
  },
  el("time", { datetime: new Date(message.ts * 1000).toISOString(), title: timeTitle(message, look) }, CLOCK[zone(look)].format(message.ts * 1000)),
  el("span", { class: "origin" }, originBadge(model, message)),
  el("span", { class: "who" }, sender(model, message), route(message, audience), kindChip(message)),
  el("div", { class: "body" },
    aboutLine(model, message),
    look.isEvidence(message) && el("p", { class: "evidence-mark" }, icon("loop"), "evidence"),
    content(model, message, look),
    folds && el("button", { type: "button", class: "unfold quiet", "aria-expanded": String(isOpen), data: { unfold: message.id } }, isOpen ? "Show less" : `Show all ${sizeOf(message)}`),
    threadButton(model, message, look)),
  drawTick(model, message));
}

// ---- what it answers, what answers it ---------------------------------------------------------------------------

/** Whether what is asked is still open: that changes in place, as ticks do. */
export function refreshAsks(node, model, seq) {
  const isOpen = model.owed.some((debt) => debt.seq === seq);
  node.dataset.open = String(isOpen);
  setText(node.lastElementChild, isOpen ? "expects an answer" : "expected an answer");
}

const OUTCOMES = { declined: "declines to answer", settled: "settles without an answer" };

function aboutLine(model, message) {
  const asks = message.expects_answer && el("span", { class: "asks" }, icon("help"), el("span"));
  if (asks) refreshAsks(asks, model, message.seq);
  return message.reply_to || asks ? el("div", { class: "about" }, message.reply_to ? quoteButton(model, message) : null, asks) : null;
}

/** The first words of what is answered: as the hub quotes them, or from this page, for the operator may read all. */
function quoteButton(model, message) {
  const answered = saidAs(model, message.reply_to);
  const words = lineOf(message.quote || answered?.content || "", QUOTE_CHARS);
  const outcome = Object.hasOwn(OUTCOMES, message.outcome ?? "") && el("span", { class: "outcome" }, OUTCOMES[message.outcome]);
  return el("button", { type: "button", class: "quote", title: "Go to what this answers (p)", data: { jump: String(message.reply_to) } },
    icon("reply"), outcome, answered && el("bdi", { class: "quoted-name" }, answered.origin === "agent" ? answered.sender : "operator"),
    el("bdi", { class: "quoted" }, words ? drawLine(words, { hasLinks: false }) : `message ${message.reply_to}`));
}

const QUOTE_CHARS = 200;

/** How many answers follow in a thread that this message begins; they fold away. */
function threadButton(model, message, look) {
  const thread = threadOf(model, message.id);
  const ids = model.threads.get(thread);
  if (ids?.[0] !== message.id || ids.length < 2) return null;
  const isOpen = !look.isCollapsed(thread);
  const count = ids.length - 1;
  return el("div", { class: "thread" },
    button(`${count} ${message.reply_to ? "more " : ""}${count === 1 ? "answer" : "answers"}${isOpen ? "" : " folded"}`, isOpen ? "down" : "next",
      { class: "thread-fold quiet", "aria-expanded": String(isOpen), title: "Fold the answers, or show them (e)", data: { foldThread: thread } }),
    button("Only this", "thread", { class: "thread-alone quiet", title: "Show this thread alone (v)", data: { alone: message.id } }));
}

/** The syntax tree of a message's Markdown; a message of the record brings its own. */
export const treeOf = (model, message) => model.trees.get(message.id) ?? message.tree;

function sizeOf({ content }) {
  return content.length > LONG_CHARS ? `${content.length.toLocaleString()} characters` : `${content.split("\n").length.toLocaleString()} lines`;
}

function content(model, message, look) {
  const tree = look.isSource(message) ? null : treeOf(model, message);
  const isLine = message.origin === "hub" && !look.isSource(message); // the hub reads no marks in its notices: they quote lines
  const nodesOf = (marks) => (tree ? drawTree(tree, marks) : isLine ? drawLine(message.content, { words: marks }) : drawText(message.content, marks));
  const draw = (marks) => el("div", { class: tree ? "content md" : "content", dir: "auto" }, ...nodesOf(marks));
  const words = isMeant(message, look.needle) ? look.words : [];
  const node = draw(words);
  const singles = words.flatMap((word) => word.split(" "));
  return singles.length === words.length || node.querySelector("mark") ? node : draw(singles); // a phrase that goes on in another link or cell
}

function timeTitle(message, look) {
  const number = message.seq > 0 ? `, message ${message.seq.toLocaleString()} of this hub` : "";
  return `${FULL[zone(look)].format(message.ts * 1000)}${number}`;
}

// ---- who spoke, to whom -----------------------------------------------------------------------------------------

const ORIGINS = { operator: ["Operator", "gavel"], hub: ["Hub", "hub"] };
const KINDS = { answer: ["answer", "form"], control: ["control", "stop"] };

/** The badge says who really spoke, and comes from the hub's `origin` alone. */
function originBadge(model, message) {
  if (!Object.hasOwn(ORIGINS, message.origin)) return el("span", { class: "dot", style: { "--hue": String(hueOf(model, message.sender)) } });
  const [word, iconName] = ORIGINS[message.origin];
  return el("span", { class: "badge", data: { origin: message.origin } }, icon(iconName), word);
}

function sender(model, message) {
  if (message.origin === "operator") return el("button", { type: "button", class: "only-link", tabindex: "-1", title: "Show the operator alone (s)", data: { only: "operator" } }, el("span", { class: "name operator" }, "operator"));
  if (message.origin === "hub") return el("span", { class: "name hub" }, "hub");
  const tag = el("button", { type: "button", class: "only-link", tabindex: "-1", title: `Show ${message.sender} alone (s)`, data: { only: `=${message.sender}` } }, nameTag(message.sender, hueOf(model, message.sender)));
  const child = message.meta?.child; // by the host's hook, not by what the text claims
  return child ? el("span", {}, tag, el("span", { class: "child", title: `A subagent of ${message.sender}` }, ` (child ${child})`)) : tag;
}

const ROUTES = { broadcast: "all", channel: "hash", direct: "direct" };

function route(message, audience) {
  if (audience === "notice") return null;
  const name = audience === "broadcast" ? "all" : audience === "channel" ? message.recipient.slice(1) : message.recipient;
  const only = routeOf(message);
  return el("button", { type: "button", class: "route only-link", tabindex: "-1", data: { audience, only }, title: `${audience} to ${message.recipient}: show ${wordsOfOnly(only)} alone (x)` },
    icon(ROUTES[audience]), el("span", { class: "unseen" }, ` ${audience} to `), el("bdi", {}, name));
}

function kindChip(message) {
  if (!Object.hasOwn(KINDS, message.kind)) return null;
  const [word, iconName] = KINDS[message.kind];
  return el("span", { class: "kind", data: { kind: message.kind } }, icon(iconName), word);
}
