// Only: what of the conversation is looked at alone, and what is muted. Pure.
//
//   routeOf(message)             where it was said: "all", "#channel", or the two who talk, with an arrow between; "" for notices
//   isOnly(message, only)        whether it belongs to what is shown alone
//   isMuted(message, mutes)      whether it is left out; what the operator must see never is
//   wordsOfOnly(only)            as people say it
//
// `only` is a route, "=" and a peer's name, or "operator"; "": all of it. Mutes are routes and peers.

import { ARROW, audienceOf, inOrder, isNamedIn } from "./model.js";
import { isForOperator } from "./unsettled.js";

export const ONLY = "only="; // in the address
export const MUTES_MAX = 50; // more is a matter for the room, not for the eye

const HUMAN = "human"; // the operator, as a sender and as a recipient

export function routeOf(message) {
  if (message.kind === "marker") return "";
  const audience = audienceOf(message);
  if (audience === "notice") return "";
  return audience === "direct" ? pairOf(message.origin === "operator" ? HUMAN : message.sender, message.recipient) : message.recipient;
}

export const pairOf = (one, other) => [one, other].sort(inOrder).join(ARROW);

export function isOnly(message, only) {
  if (only === "") return true;
  if (message.kind === "marker") return false;
  if (only === "operator") return message.origin === "operator" || message.recipient === HUMAN;
  if (!isPeer(only)) return routeOf(message) === only;
  const name = only.slice(1);
  return (message.origin === "agent" && message.sender === name) || isNamedIn(message.recipient, name);
}

const isPeer = (only) => only.startsWith("=") && !only.includes(ARROW);

/** By which mute a message is left out; null: by none. Words to the operator, and with @operator in them, never are. */
export function muteOf(message, mutes) {
  if (mutes.size === 0 || message.origin !== "agent" || message.recipient === HUMAN || isForOperator(message)) return null;
  const route = routeOf(message);
  return mutes.has(route) ? route : mutes.has(`=${message.sender}`) ? `=${message.sender}` : null;
}

export const isMuted = (message, mutes) => muteOf(message, mutes) !== null;

/** Mutes as this browser kept them. */
export const mutesOf = (kept) => new Set(Array.isArray(kept) ? kept.filter((one) => typeof one === "string").slice(0, MUTES_MAX) : []);

/** Whether it can be muted: what the operator says or hears cannot. */
export const mayMute = (only) => only !== "" && only !== "operator" && !only.split(ARROW).includes(HUMAN);

const nameOf = (name) => (name === HUMAN ? "the operator" : name);

export function wordsOfOnly(only) {
  if (only === "operator") return "the operator";
  if (only === "all") return "what goes to everyone";
  if (isPeer(only)) return only.slice(1);
  return only.split(ARROW).map(nameOf).join(" and ");
}

/** Whom a word in it goes to, the likeliest first. */
export function targetsOf(only) {
  if (only === "operator" || only === "all") return ["all"];
  if (isPeer(only)) return [only.slice(1)];
  return only.split(ARROW).flatMap((names) => names.split(", ")).filter((name) => name !== HUMAN);
}
