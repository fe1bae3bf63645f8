// Spent: how budgets stand, in words, and what of it needs the operator. Pure: no DOM, no clock; time comes as an argument.
//
//   budgetNeeds(model, now)     who has spent a budget, and who is near one: as needsOf gives them
//   isSpent(model, name)        whether an agent is held for a budget of its own
//   budgetWords(model, name)    one line for an agent's card; empty while nothing is near

import { ageText } from "./model.js";

const KINDS = { messages: "messages", characters: "characters", wakes: "wakes", tokens: "tokens", dollars: "dollars" };

export const kindOf = (row) => row.measure.replace(/\/h$/, "");
const isHourly = (row) => row.measure.endsWith("/h");
export const keyOf = ({ spender, measure }) => `${spender} ${measure}`;

const number = (row, value) => (kindOf(row) === "dollars" ? `$${value.toFixed(2)}` : Math.round(value).toLocaleString("en"));

/** "20,000 characters an hour" */
export function limitText(row) {
  const kind = kindOf(row);
  return `${number(row, row.limit)}${kind === "dollars" ? "" : ` ${KINDS[kind] ?? kind}`}${isHourly(row) ? " an hour" : ""}`;
}

/** What was spent, of how much; what nobody knows is not nothing. */
export function spentText(row) {
  const known = `${number(row, row.spent)} of ${limitText(row)}`;
  if (!row.unknown) return known;
  return row.spent > 0 ? `at least ${known}; the rest is unknown: ${row.unknown}` : `unknown, of ${limitText(row)}: ${row.unknown}`;
}

export const share = (row) => Math.min(1, row.spent / row.limit);

/** How it stands, in a word or two. */
export function levelText(row, now) {
  if (row.level === "spent") return row.back_ts ? `spent; room again in ${ageText(Math.max(0, row.back_ts - now / 1000))}` : "spent";
  if (row.level === "near") return "nearly spent";
  return row.unknown && !row.spent ? "unknown" : `${Math.floor(share(row) * 100)} %`;
}

const rowsOf = (model, name) => model.budgets.rows.filter((row) => row.name === name);

export const isSpent = (model, name) => rowsOf(model, name).some((row) => row.level === "spent");

export function budgetWords(model, name) {
  const row = rowsOf(model, name).find(({ level }) => level === "spent") ?? rowsOf(model, name).find(({ level }) => level === "near");
  if (!row) return "";
  const waits = row.waiting ? `; ${row.waiting} of its messages wait` : "";
  return row.level === "spent" ? `Budget spent: ${spentText(row)}${waits}` : `Budget nearly spent: ${spentText(row)}`;
}

/** Of an agent that is gone nothing is asked, unless its words wait. */
const isAsked = (row) => row.level === "near" ? row.name === null || row.here : row.level === "spent" && (row.name === null || row.here || row.waiting > 0);

export function budgetNeeds(model, now) {
  return model.budgets.rows.filter(isAsked).map((row) => ({
    id: `budget:${model.room}:${keyOf(row)}:${row.level}:${row.limit}`, kind: "budget", who: row.name, since: null,
    text: needText(row, now), help: { word: row.level === "near" ? "Budgets" : row.name === null ? "Raise or stop" : "Raise or end", go: ["budgets", keyOf(row)] },
  }));
}

function needText(row, now) {
  const who = row.name === null ? "The room " : "";
  if (row.level === "near") return `${who}has used ${Math.floor(share(row) * 100)} % of its budget of ${limitText(row)}.`;
  const waits = row.waiting ? ` ${row.waiting} of its messages ${row.waiting === 1 ? "waits" : "wait"}.` : "";
  const back = row.back_ts ? ` It goes on by itself in ${ageText(Math.max(0, row.back_ts - now / 1000))}.` : "";
  return `${who}has spent its budget of ${limitText(row)}, and is ${row.name !== null && !row.here ? "gone" : "paused"}.${waits}${back}`;
}
