// How budgets stand, in words, and what of it needs the operator.

import assert from "node:assert/strict";
import { test } from "node:test";
import { apply, emptyModel } from "../../ui/model.js";
import { needsOf } from "../../ui/needs.js";
import { budgetWords, isSpent, levelText, limitText, spentText } from "../../ui/spent.js";

const NOW = 1_700_000_000_000;
const row = (more = {}) => ({ spender: "api", name: "api", here: true, measure: "messages/h", limit: 500, spent: 100, level: "fine", unknown: "", back_ts: null, waiting: 0, ...more });

function room(...rows) {
  return apply(Object.assign(emptyModel(), { mode: "running", room: "r", peersAt: NOW }), { type: "budgets", text: "t", rows, more: 0 }, NOW);
}

const needs = (...rows) => needsOf(room(...rows), NOW);

test("what is fine needs nobody", () => {
  assert.deepEqual(needs(row()), []);
  assert.equal(budgetWords(room(row()), "api"), "");
});

test("near and spent say how far, what waits, and when it ends", () => {
  assert.equal(needs(row({ level: "near", spent: 410 }))[0].text, "has used 82 % of its budget of 500 messages an hour.");
  const [need] = needs(row({ level: "spent", spent: 503, waiting: 3, back_ts: NOW / 1000 + 720 }));
  assert.equal(need.text, "has spent its budget of 500 messages an hour, and is paused. 3 of its messages wait. It goes on by itself in 12 min.");
  assert.deepEqual(need.help, { word: "Raise or end", go: ["budgets", "api messages/h"] });
  const [whole] = needs(row({ spender: "room", name: null, here: false, level: "spent", spent: 503 }));
  assert.equal(whole.text, "The room has spent its budget of 500 messages an hour, and is paused.");
  assert.equal(whole.help.word, "Raise or stop");
});

test("of one that is gone nothing is asked, unless its words wait", () => {
  assert.deepEqual(needs(row({ level: "spent", here: false })), []);
  assert.match(needs(row({ level: "spent", here: false, waiting: 1 }))[0].text, /and is gone\. 1 of its messages waits\.$/);
});

test("unknown is no zero", () => {
  const unknown = row({ measure: "tokens", limit: 100_000, spent: 0, unknown: "it reports no usage" });
  assert.equal(spentText(unknown), "unknown, of 100,000 tokens: it reports no usage");
  assert.equal(levelText(unknown, NOW), "unknown");
  assert.equal(spentText(row({ measure: "dollars", limit: 5, spent: 1.5, unknown: "its model has no price" })), "at least $1.50 of $5.00; the rest is unknown: its model has no price");
  assert.equal(limitText(row({ measure: "dollars/h", limit: 5 })), "$5.00 an hour");
});

test("who is held by a budget is not called deaf", () => {
  const model = room(row({ level: "spent" }));
  model.peers = [{ name: "api", state: "live", listening: false, paused: false, waiting: 3, last_seen_age: 900, stop_told: null }];
  assert.ok(isSpent(model, "api"));
  assert.deepEqual(needsOf(model, NOW).map((need) => need.kind), ["budget"]);
});

test("a raise becomes a new need if that is spent, too", () => {
  assert.notEqual(needs(row({ level: "spent", limit: 500 }))[0].id, needs(row({ level: "spent", limit: 600 }))[0].id);
});
