// How far a message has come, in words that are true.

import assert from "node:assert/strict";
import { test } from "node:test";
import { apply, emptyModel } from "../../ui/model.js";
import { fatesOf, tickOf } from "../../ui/receipts.js";

const NOW = 1_700_000_000_000;
const receipt = (more) => ({ id: "m", seq: 1, queued: 0, fetched: 0, acknowledged: 0, answered: 0, lost: 0, who: null, ...more });
const message = { id: "m", seq: 1, ts: NOW / 1000, origin: "agent", kind: "message", sender: "web", recipient: "all", content: "hello" };

function heard(now, ...frames) {
  const model = apply(apply(emptyModel(), { type: "snapshot", room: "r", mode: "running", log: [] }, NOW), { type: "message", message }, NOW);
  for (const frame of frames) apply(model, frame, now);
  return model;
}

test("the mark is the worst of all recipients, with how many are beyond it", () => {
  const cases = [
    [{ queued: 1 }, "queued", "queued"],
    [{ answered: 1 }, "answered", "answered"],
    [{ queued: 3, fetched: 1, answered: 1 }, "queued", "2 of 5 have it"],
    [{ fetched: 5 }, "fetched", "all 5 fetched"],
    [{ fetched: 2, acknowledged: 3 }, "fetched", "3 of 5 acknowledged"],
    [{ acknowledged: 5 }, "acknowledged", "all 5 acknowledged"],
    [{ acknowledged: 4, answered: 1 }, "acknowledged", "1 of 5 answered"],
    [{ answered: 5 }, "answered", "all 5 answered"],
    [{ lost: 1, queued: 2, acknowledged: 2 }, "lost", "1 of 5 lost it"],
    [{ lost: 5 }, "lost", "lost for all 5"],
  ];
  for (const [counts, state, text] of cases) assert.deepEqual(tickOf(receipt(counts)), { state, text });
  assert.deepEqual(tickOf(receipt({ queued: 1 }), true), { state: "held", text: "held" }, "its lane is held");
  assert.equal(tickOf(receipt({})), null, "it is for nobody");
  assert.equal(tickOf(undefined), null, "nothing is known of it");
});

test("each recipient has its state, the reason of a loss, and an age where this page knows one", () => {
  const who = { api: "queued", ops: "lost: left: bye", web: "fetched" };
  const model = heard(NOW + 2000, { type: "receipts", since: 1, changed: [receipt({ queued: 1, fetched: 1, lost: 1, who })] });
  const { lines, isKnown } = fatesOf(model, message, NOW + 10_000);
  assert.equal(isKnown, true);
  assert.deepEqual(lines, [
    { name: "ops", state: "lost", why: "left: bye", age: 8 },
    { name: "api", state: "queued", why: "", age: 10 },
    { name: "web", state: "fetched", why: "", age: 8 },
  ]);
});

test("of many recipients the hub is asked", () => {
  const model = heard(NOW, { type: "receipts", since: 1, changed: [receipt({ queued: 20 })] });
  assert.deepEqual(fatesOf(model, message, NOW), { lines: [], more: 20, isKnown: false });
  apply(model, { type: "receipt", seq: 1, who: { api: "queued" }, more: 19 }, NOW);
  const { lines, more, isKnown } = fatesOf(model, message, NOW + 3000);
  assert.deepEqual([lines[0].name, lines[0].age, more, isKnown], ["api", 3, 19, true]);
});

test("of one to many an age is told once it was asked for before, and moved", () => {
  const model = heard(NOW, { type: "receipts", since: 1, changed: [receipt({ queued: 20 })] });
  apply(model, { type: "receipt", seq: 1, who: { api: "queued" }, more: 19 }, NOW);
  apply(model, { type: "receipt", seq: 1, who: { api: "fetched" }, more: 19 }, NOW + 1000);
  assert.equal(fatesOf(model, message, NOW + 4000).lines[0].age, 3);
});

test("after a reload no age is invented, whatever the snapshot's messages have come to", () => {
  const model = apply(emptyModel(), { type: "snapshot", room: "r", mode: "running", log: [message] }, NOW + 2000);
  const told = (state, now) => apply(model, { type: "receipts", since: 1, changed: [receipt({ [state]: 1, who: { web: state } })] }, now);
  const age = (now) => fatesOf(model, message, now).lines[0].age;
  told("fetched", NOW + 2000);
  assert.equal(age(NOW + 5000), null);
  told("acknowledged", NOW + 6000);
  assert.equal(age(NOW + 7000), 1, "this was seen");
  apply(model, { type: "snapshot", room: "r", mode: "running", log: [message] }, NOW + 20_000);
  told("answered", NOW + 20_000);
  assert.equal(age(NOW + 21_000), null, "it happened while the line was cut");
});
