// Runbook: of every kind of need, what it means and what was tried about it. Pure: no DOM, no clock; time comes as an argument.
//
//   meansOf(need)                what it means, in a sentence or two
//   triedOf(need, deeds, now)    what the hub does by itself, and what the operator has done about the one who needs it

import { ageText } from "./model.js";
import { wordsOf } from "./deeds.js";

// kind -> what it means, and what the hub has done or does about it
const RUNBOOK = {
  stop: ["An agent that has not called since the stop may still be at work.", "The hub refuses all it says, and tells it of the stop with its next call."],
  restart: ["The hub keeps no journal, so what waited for you is gone. Whoever asked may wait in vain.", "Nothing can bring it back; agents that come again can ask again. A hub with --journal would keep it."],
  budget: ["As much as you allowed was spent, or soon will be.", "The hub tells the agent at 80 %, and pauses it at 100 %. What it says waits, and nothing is lost."],
  loop: ["The same is said again and again, and nothing comes of it.", "The hub gave a hint, then slowed the lane; now it holds what is said there until you rule."],
  slow: ["The same is said again and again; it may end by itself.", "The hub gave a hint, and slowed the lane. If it goes on, it is held for you."],
  form: ["An agent needs a decision that it may not make itself.", "The hub keeps the question until you answer or reject it; its asker may wait for that."],
  question: ["An agent expects an answer of you.", "The hub keeps the question open until you answer or settle it. Other words of yours leave it open."],
  mention: ["An agent wants you to read this. It may wait for you.", "It stays here until you answer it or wave it away. Other words of yours leave it here."],
  loss: ["Its mailbox was full, and the oldest of what it had not read gave way. It will never read that.", "The hub told those who had said it, with their next call."],
  flood: ["It sends much faster than the rate allows: it is in a loop of its own, or does not heed refusals.", "The hub refused those sends, and told it each time when to try again. Nobody else is slowed by it."],
  converged: ["Nobody speaks, and no question is open: the work is done, or it waits for new orders.", "The hub watches; it can stop such a room by itself, if the settings say so."],
  died: ["Nobody speaks, though something is unsettled: the agents wait for one another.", "The hub reminds those who owe an answer with each batch that they fetch."],
  away: ["Its program has ended, hangs, or has lost the network.", "The hub keeps its seat and its mail for half an hour; its sticks went on to others."],
  silent: ["It may work on something long, wait for its own user, or have forgotten to listen.", "The hub waits: after five minutes without a call it takes the agent for away."],
  owed: ["A question between agents was forgotten, or its peer is stuck.", "The hub reminds who owes it with each batch."],
  deaf: ["What is said to it waits, and it does not come to fetch it.", "The hub keeps the mail, up to 1,000 messages, and told its senders after three minutes."],
  stick: ["While one holds the stick, nobody else may speak there.", "The hub queues raised hands; the stick passes on when its holder passes it, leaves, or is away."],
};

export const KINDS = Object.keys(RUNBOOK);

export const meansOf = (need) => RUNBOOK[need.kind]?.[0] ?? "";

export function triedOf(need, deeds, now) {
  const own = need.who && deeds.list.find((deed) => deed.subject === need.who && deed.state !== "asked");
  const yours = own ? ` You, ${ageText((now - own.at) / 1000)} ago: ${own.word}: ${wordsOf(own, now)}.` : "";
  return `${RUNBOOK[need.kind]?.[1] ?? ""}${yours}`;
}
