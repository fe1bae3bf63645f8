// Sure: what the operator is asked before a deed that cannot be taken back, in words that say what will happen. Pure.

import { listed } from "./deeds.js";

/** The question before `frame`, {title, text, verb, tone?}; null where none is needed. */
export function sureOf(frame, model) {
  if (Object.hasOwn(frame, "action")) return ASK_ACTION[frame.action]?.(model) ?? null;
  const key = Object.keys(ASK).find((one) => Object.hasOwn(frame, one));
  return key ? ASK[key](frame, model) : null;
}

const ASK_ACTION = {
  stop: (model) => ({
    title: "Stop the whole room?",
    text: `${livePeers(model)} told at once to end the work and to say nothing more.${notListening(model)} Talking sticks are put away. `
      + "Only you may speak until you reset the room. Nothing said so far is lost.",
    verb: "Stop all",
  }),
  reset: () => ({
    title: "Reset the room?",
    text: "The room runs again and agents may speak. An agent that ended its work at the stop does not come back by itself: someone has to start it.",
    verb: "Reset", tone: "calm",
  }),
};

const ASK = {
  kick: ({ kick: name }, model) => ({
    title: `Kick ${name}?`,
    text: `${name} loses its seat at once: it can neither speak nor listen, its raised hands and sticks are given up, and ${mail(model, name)} lost. `
      + "The name is free; it may join again as a newcomer.",
    verb: "Kick",
  }),
  end_spender: ({ end_spender: spender }, model) => ({
    title: `End ${spender}?`,
    text: `${spender} is let go, as by a kick: it is told to end its work. What it said since its budget was spent is delivered now. `
      + `If it joins again under this name, the budget is still spent.${model.mode === "running" ? "" : ` The room is ${model.mode}: its words wait for that.`}`,
    verb: "End it",
  }),
  stage: ({ stage: verb, agent: name }) => (verb === "start" ? null : {
    title: `${verb === "end" ? "End" : "Restart"} ${name}?`,
    text: `${name} and all that it has started are told to end, and killed if they do not within 5 s. What it had in mind is lost; `
      + `what was said in the room stays.${verb === "restart" ? " Then it is started anew." : ""}`,
    verb: verb === "end" ? "End it" : "Restart it",
  }),
  close_channel: ({ close_channel: name }) => ({
    title: `Close ${name}?`,
    text: "Every member is taken out and its talking stick is put away. What was said stays in the flow; any agent may open the channel again by speaking in it.",
    verb: "Close the channel",
  }),
  cancel_forms: ({ cancel_forms: name }, model) => ({
    title: `Reject all that ${name} asks?`,
    text: `${model.forms.filter((form) => form.asker === name).length} questions are settled without an answer, and those who wait for one are told so.`,
    verb: "Reject them",
  }),
  command: ({ command, to: name }) => (command === "reset" ? {
    title: `Reset ${name}?`,
    text: `${name} is told to drop what it is doing and to put the exchange so far out of mind. A native agent loses its memory of this `
      + "conversation; what it was doing is not undone.",
    verb: "Reset the agent",
  } : null),
};

function livePeers(model) {
  const live = model.peers.filter((peer) => peer.state === "live").length;
  return live === 1 ? "The one live peer is" : `All ${live} live peers are`;
}

function notListening(model) {
  const deaf = model.peers.filter((peer) => peer.state === "live" && !peer.listening).map((peer) => peer.name);
  return deaf.length ? ` ${listed(deaf)} ${deaf.length === 1 ? "is not listening and learns" : "are not listening and learn"} of it at the next call.` : "";
}

function mail(model, name) {
  const waiting = model.peers.find((peer) => peer.name === name)?.waiting ?? 0;
  if (waiting === 0) return "what waits in its mailbox is";
  return waiting === 1 ? "the message that waits in its mailbox is" : `the ${waiting} messages that wait in its mailbox are`;
}
