// Receipts: how far a message has come, in words that are true. Pure.
//
//   tickOf(receipt, held)                      null, or {state, text}: the one mark of a message; held: its lane is
//   fatesOf(model, message, now)               {lines: [{name, state, why, age}], more, isKnown}: each recipient, the worst first
//
// queued        it waits in the recipient's mailbox
// held          so it does, and the operator is to rule on its lane first
// fetched       the recipient's process has it; whether its agent has read it, nobody knows
// acknowledged  the recipient's agent has called since
// answered      the recipient has answered it
// lost          it never will arrive: the mailbox was full, or its peer is gone

import { isHeld, momentOf } from "./model.js";

export const STATES = ["lost", "queued", "fetched", "acknowledged", "answered"]; // the worst first

export const MEANINGS = {
  queued: "waits in its mailbox",
  held: "its lane is held for the operator",
  fetched: "its process has it",
  acknowledged: "its agent has called since",
  answered: "it has answered",
  lost: "it will not arrive",
};

const countOf = (receipt) => STATES.reduce((sum, state) => sum + receipt[state], 0);

/** The mark of a message: the worst of its recipients, and how many are beyond that. */
export function tickOf(receipt, held = false) {
  if (held) return { state: "held", text: "held" }; // for all of its recipients
  const all = receipt ? countOf(receipt) : 0;
  if (all === 0) return null;
  const state = STATES.find((one) => receipt[one] > 0);
  return { state, text: all === 1 ? state : GROUP[state](receipt, all) };
}

const GROUP = {
  lost: ({ lost }, all) => (lost === all ? `lost for all ${all}` : `${lost} of ${all} lost it`),
  queued: ({ queued, lost }, all) => `${all - queued - lost} of ${all} have it`,
  fetched: ({ acknowledged, answered }, all) => (acknowledged + answered ? `${acknowledged + answered} of ${all} acknowledged` : `all ${all} fetched`),
  acknowledged: ({ answered }, all) => (answered ? `${answered} of ${all} answered` : `all ${all} acknowledged`),
  answered: (_, all) => `all ${all} answered`,
};

/** Each recipient of a message; of one to many, what the hub last said when it was asked. */
export function fatesOf(model, message, now) {
  const receipt = model.receipts.get(message.id);
  if (!receipt) return { lines: [], more: 0, isKnown: false };
  const told = model.fates?.seq === message.seq ? model.fates : null;
  const who = receipt.who ?? told?.who;
  if (!who) return { lines: [], more: countOf(receipt), isKnown: false };
  const queuedFor = Math.max(0, momentOf(model, now) / 1000 - message.ts);
  const held = isHeld(model, message);
  const lines = Object.entries(who).map(([name, words]) => {
    const [, state, why = ""] = /^(\w+)(?:: (.*))?$/s.exec(words) ?? [null, words];
    const since = (receipt.who ? receipt : told).at.get(name) ?? null;
    const age = state === "queued" ? queuedFor : since === null ? null : Math.max(0, now - since) / 1000;
    return { name, state: held && state === "queued" ? "held" : state, why, age };
  });
  lines.sort((a, b) => STATES.indexOf(a.state) - STATES.indexOf(b.state));
  return { lines, more: receipt.who ? 0 : told.more, isKnown: true };
}

/** Whether some recipient has not fetched it, or never will. */
export const isUnfetched = (receipt) => receipt.queued + receipt.lost > 0;
