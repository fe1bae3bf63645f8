// Picture: where everything lies in the picture of the conversation. Pure: lanes side by side, time running down.
//
//   emptyPicture()               nothing drawn yet
//   extend(picture, model)       take what was said since; how far the whole moved up, because the log forgot its beginning
//   lanesOf(picture, model)      [{key, kind: operator | peer | all | channel, name, label}], from left to right
//   strokesOf(message)           [from lane, to lane]: keys of lanes; from is null for the hub, to is null for its notices
//
// Down is time, but not evenly: each message has its line, and a silence grows slower the longer it lasts, so that an hour
// of work fits the eye and a burst can still be told apart.

import { audienceOf, entryAt, inOrder, isToOperator, logEnd } from "./model.js";

const STEP_PX = 9; // between two messages of the same second
const SILENCE_PX = 7; // for each doubling of the silence between two
const SILENCE_MAX_PX = 70;
const HEAD_PX = 10;

export const emptyPicture = () => ({ start: 0, ys: [], ts: [], speakers: new Map(), scopes: new Map() });

export function extend(picture, model) {
  const moved = forget(picture, model.logStart);
  for (let index = picture.start + picture.ys.length; index < logEnd(model); index += 1) {
    const message = entryAt(model, index);
    const last = picture.ys.length - 1;
    const silence = last < 0 ? 0 : Math.max(0, message.ts - picture.ts[last]);
    const step = last < 0 ? HEAD_PX : STEP_PX + Math.min(SILENCE_MAX_PX, SILENCE_PX * Math.log2(1 + silence));
    picture.ys.push((last < 0 ? 0 : picture.ys[last]) + step);
    picture.ts.push(last < 0 ? message.ts : Math.max(message.ts, picture.ts[last])); // time in the picture never runs up
    if (message.origin === "agent") picture.speakers.set(message.sender, index);
    if (audienceOf(message) === "channel") picture.scopes.set(message.recipient, index);
    if (message.origin !== "hub" && audienceOf(message) === "direct" && !isToOperator(message)) for (const name of severalOf(message)) picture.speakers.set(name, index);
  }
  return moved;
}

function forget(picture, logStart) {
  const count = Math.min(logStart - picture.start, picture.ys.length);
  if (logStart <= picture.start) return 0;
  const moved = count > 0 ? picture.ys[count - 1] : 0;
  picture.ys = picture.ys.slice(count).map((y) => y - moved);
  picture.ts = picture.ts.slice(count);
  picture.start = logStart;
  for (const seen of [picture.speakers, picture.scopes]) {
    for (const [name, index] of seen) if (index < logStart) seen.delete(name);
  }
  return moved;
}

export const heightOf = (picture) => (picture.ys.at(-1) ?? 0) + HEAD_PX * 2;

/** The operator, then peers, then everyone, then channels, each by name: those that are here or that have been heard. */
export function lanesOf(picture, model) {
  const here = new Set(model.peers.map((peer) => peer.name));
  const peers = [...model.hues.keys()].filter((name) => here.has(name) || picture.speakers.has(name)).sort(inOrder);
  const channels = [...new Set([...picture.scopes.keys(), ...Object.keys(model.channels)])].sort(inOrder);
  return [
    { key: "operator", kind: "operator", name: "operator", label: "operator" },
    ...peers.map((name) => ({ key: `=${name}`, kind: "peer", name, label: name })),
    { key: "all", kind: "all", name: "all", label: "everyone" },
    ...channels.map((name) => ({ key: name, kind: "channel", name, label: name })),
  ];
}

/** Whom a direct message is for; the operator's may be for several, and its stroke goes to the first of them. */
const severalOf = ({ origin, recipient }) => (origin === "operator" ? recipient.split(", ") : [recipient]);

export function strokesOf(message) {
  const audience = audienceOf(message);
  const from = message.origin === "operator" ? "operator" : message.origin === "hub" ? null : `=${message.sender}`;
  if (audience === "notice" || message.kind === "marker") return [null, null];
  return [from, isToOperator(message) ? "operator" : audience === "direct" ? `=${severalOf(message)[0]}` : message.recipient];
}

/** The place of a moment, ms; between two messages it lies between them. */
export function yOf(picture, ms) {
  const { ys, ts } = picture;
  const moment = ms / 1000;
  const next = lowest(ts, (at) => at > moment);
  if (next === 0) return 0;
  if (next === ts.length) return (ys.at(-1) ?? 0) + STEP_PX / 2;
  const share = (moment - ts[next - 1]) / (ts[next] - ts[next - 1]);
  return ys[next - 1] + share * (ys[next] - ys[next - 1]);
}

/** The places in the conversation of what lies between two heights: [first, one past the last]. */
export function indexesBetween(picture, top, bottom) {
  return [picture.start + lowest(picture.ys, (y) => y >= top), picture.start + lowest(picture.ys, (y) => y > bottom)];
}

export const yAt = (picture, index) => picture.ys[Math.min(Math.max(0, index - picture.start), picture.ys.length - 1)] ?? 0;

/** The place in the conversation of what lies nearest to a height; -1 when nothing is nearer than `reach`. */
export function nearest(picture, y, reach) {
  const next = lowest(picture.ys, (other) => other >= y);
  const found = [next - 1, next].filter((n) => n >= 0 && n < picture.ys.length).sort((a, b) => Math.abs(picture.ys[a] - y) - Math.abs(picture.ys[b] - y))[0];
  return found === undefined || Math.abs(picture.ys[found] - y) > reach ? -1 : picture.start + found;
}

/** The first place in an ordered list at which `holds`; the list's length if nowhere. */
export function lowest(list, holds) {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(list[middle])) high = middle;
    else low = middle + 1;
  }
  return low;
}
