// Health: the room in figures, with what they were in the last minutes.

import { chart, drawChart, el, keyed, setAttribute, setText } from "./dom.js";
import { pushWords } from "./away.js";
import { ageText, amount, costText, many, usageExactly, usageOf } from "./model.js";

const SPAN_MS = [60_000, 10 * 60_000]; // what a chart shows: at least, at most; in between as much as the page has heard

const live = (peers) => peers.filter((peer) => peer.state === "live");

// key of the figure -> label, value in words, the history's field for its chart
const FIGURES = [
  ["mode", "Mode", (model) => model.mode ?? "unknown"],
  ["uptime", "Uptime", ({ health }) => ageText(health.uptime)],
  ["msg_per_min", "Messages/min", ({ health }) => amount(health.msg_per_min), "msgs"],
  ["char_per_min", "Characters/min", ({ health }) => amount(health.char_per_min), "chars"],
  ["peer_count", "Peers", ({ health }) => amount(health.peer_count)],
  ["queue_depth", "Queued", ({ health }) => amount(health.queue_depth)],
  ["msg_total", "Messages so far", ({ health }) => amount(health.msg_total)],
  ["mem_rss_mb", "Memory", ({ health }) => `${Math.round(health.mem_rss_mb)} MB`],
  ["unsent_bytes", "Unread by readers", ({ health }) => `${(health.unsent_bytes / 2 ** 20).toFixed(1)} MB`],
  ["wrong_credentials", "Wrong tokens", ({ health }) => amount(health.wrong_credentials)],
  ["journal", "Journal", ({ health }) => (health.journal ? `${(health.journal.bytes / 2 ** 20).toFixed(1)} MB` : "none")],
  ["head", "Head of the record", ({ health }) => health.journal.head],
  ["notify", "Pushes", ({ health }) => (health.notify ? `${amount(health.notify.sent)} sent${health.notify.fault ? ", failing" : ""}` : "none")],
  ["usage", "Cost", ({ peers }) => costText(usageOf(live(peers)))],
  ["rate", "Rate", ({ rate }) => `${rate.refill_rate}/s, burst ${rate.capacity}`],
];
const TITLES = {
  queue_depth: "Messages that no peer has fetched yet",
  unsent_bytes: "Answers that their readers have not taken yet; beyond 64 MB the hub closes the greatest of them",
  wrong_credentials: "Calls and consoles that showed a token or key which is not the right one",
  journal: "The file that keeps the room through a restart; without one, a restart forgets everything",
  head: "The hash of the latest event and of all before it: who notes it can later prove that nothing was changed, with caucus journal verify",
  rate: "How fast each peer may speak: messages a second, and how many at once",
  char_per_min: "Characters that agents said in the last minute",
};

function isKnown(model) {
  const hasJournal = model.health && "journal" in model.health; // null: it keeps none, which is worth knowing
  const own = { mode: model.mode, rate: model.rate, usage: usageOf(live(model.peers)), journal: hasJournal || null, notify: (model.health && "notify" in model.health) || null, head: model.health?.journal?.head }; // the rest are of the hub's health
  return ([key]) => ((key in own ? own[key] : model.health?.[key]) ?? null) !== null;
}

export function render(root, model, send, now, seat) {
  const consoles = model.health?.console_count;
  const facts = [consoles && many(consoles, "console"), model.version && `v${model.version}`];
  setText(document.getElementById("health-facts"), facts.filter(Boolean).join(" · "));
  keyed(root, FIGURES.filter(isKnown(model)), ([key]) => key, (figure) => tile(figure, seat), (node, figure) => refresh(node, figure, model, now));
}

function tile([key, label, , series], seat) {
  return el("div", { class: series ? "figure charted" : "figure", data: { figure: key }, title: TITLES[key] },
    el("span", { class: "figure-label" }, label),
    el("span", { class: "figure-value" }),
    series && chart(label),
    key === "rate" && el("button", { type: "button", class: "retune quiet", title: "Change the rate of every peer", onclick: () => seat.go("rate") }, "Change"));
}

function refresh(node, [key, , text, series], model, now) {
  setText(node.querySelector(".figure-value"), text(model));
  const retune = node.querySelector(".retune");
  if (retune) {
    retune.hidden = model.link.role !== "operator";
    retune.disabled = model.link.state !== "open";
  }
  if (key === "notify") setAttribute(node, "title", pushWords(model.health.notify, now));
  if (key === "mode") node.dataset.mode = model.mode;
  if (key === "usage") setAttribute(node, "title", costTitle(usageOf(live(model.peers))));
  if (series) drawSeries(node.querySelector(".chart"), series, model.history ?? [], now);
}

function costTitle(usage) {
  const who = `The models of ${many(usage.peers, "live peer")}`;
  const free = usage.unpriced && usage.unpriced < usage.peers ? `; ${amount(usage.unpriced)} of them without a price` : "";
  return `${who}, by their own count: ${usageExactly(usage)}${free}`;
}

function drawSeries(svg, series, history, now) {
  const span = Math.min(SPAN_MS[1], Math.max(SPAN_MS[0], now - (history[0]?.at ?? now)));
  const points = history.filter((point) => now - point.at <= span).map((point) => [1 - (now - point.at) / span, point[series] ?? 0]);
  const max = Math.max(1, ...points.map(([, value]) => value));
  drawChart(svg, points, max);
  const min = Math.min(max, ...points.map(([, value]) => value));
  setAttribute(svg, "aria-label", `In the last ${Math.ceil(span / 60_000)} min: between ${Math.round(min)} and ${Math.round(max)}`);
}
