// What of the conversation is shown, and in what order. Run: node --test tests/ui/
import test from "node:test";
import assert from "node:assert/strict";
import { apply, emptyModel, LOG_MAX } from "../../ui/model.js";
import { advance, emptyFilter, emptyRows, havingFate, isNarrow, rowOf } from "../../ui/rows.js";

const NOON = Date.UTC(2026, 10, 23, 12) / 1000;
let lastId = 0;

function said(sender, content, more = {}) {
  lastId += 1;
  return { id: `r${lastId}`, sender, recipient: "all", content, kind: "message", ts: NOON, seq: lastId, origin: "agent", ...more };
}
const notice = (content, more = {}) => said("hub", content, { kind: "system", seq: 0, origin: "hub", ...more });

function heard(...messages) {
  const model = emptyModel();
  for (const message of messages) apply(model, { type: "message", message }, 0);
  return model;
}
function shown(model, filter = {}, opened = new Set(), more = {}) {
  const rows = emptyRows({ ...emptyFilter(), ...filter }, true, { opened, ...more });
  advance(rows, model);
  return rows;
}
const types = (rows) => rows.items.map((item) => item.type);
const contents = (rows) => rows.items.filter((item) => item.type === "message").map((item) => item.message.content);

test("each day has a line before its first message, and a long silence has one", () => {
  const rows = shown(heard(said("api", "a"), said("web", "b", { ts: NOON + 700 }), said("api", "c", { ts: NOON + 86_400 })));
  assert.deepEqual(types(rows), ["day", "message", "gap", "message", "day", "message"]);
  assert.equal(rows.items[2].seconds, 700);
});

test("a day ends at midnight, local or UTC as the reader wants it", () => {
  const model = heard(said("api", "a", { ts: Date.UTC(2026, 10, 23, 23, 59, 50) / 1000 }), said("api", "b", { ts: Date.UTC(2026, 10, 24, 0, 0, 5) / 1000 }));
  assert.deepEqual(types(shown(model)), ["day", "message", "day", "message"]);
});

test("a sender who goes on keeps one heading; another scope, another sender or the hub begins anew", () => {
  const rows = shown(heard(said("api", "a"), said("api", "b"), said("api", "c", { recipient: "#x" }), said("web", "d"), notice("e"), notice("f"), said("web", "g", { ts: NOON + 100 })));
  assert.deepEqual(rows.items.filter((item) => item.type === "message").map((item) => item.goesOn), [false, true, false, false, false, false, false]);
});

test("what is said in one breath folds but for its beginning and its end, and goes on folding", () => {
  const lines = (count) => Array.from({ length: count }, (_, n) => said("api", `line ${n}`));
  const model = heard(...lines(7));
  const rows = shown(model);
  assert.deepEqual(types(rows), ["day", ...Array(7).fill("message")]);
  apply(model, { type: "message", message: said("api", "line 7") }, 0);
  const { from } = advance(rows, model);
  assert.deepEqual(types(rows), ["day", "message", "message", "message", "fold", "message"]);
  assert.deepEqual(contents(rows), ["line 0", "line 1", "line 2", "line 7"]);
  assert.equal(from, 4);
  apply(model, { type: "message", message: said("api", "line 8") }, 0);
  advance(rows, model);
  assert.equal(rows.items[4].hidden.length, 5);
  assert.deepEqual(contents(rows), ["line 0", "line 1", "line 2", "line 8"]);
  apply(model, { type: "message", message: said("web", "and I") }, 0);
  advance(rows, model);
  assert.deepEqual(contents(rows).at(-1), "and I");
  assert.equal(contents(shown(model, {}, new Set([0]))).length, 10);
});

test("notices of the hub fold too, and each said slowly does not", () => {
  assert.ok(types(shown(heard(...Array.from({ length: 12 }, (_, n) => notice(`p${n} joined`))))).includes("fold"));
  assert.ok(!types(shown(heard(...Array.from({ length: 12 }, (_, n) => said("api", `${n}`, { ts: NOON + 30 * n }))))).includes("fold"));
});

test("a row is found by its place in the conversation, folded or not; one that is filtered out is not", () => {
  const model = heard(...Array.from({ length: 12 }, (_, n) => said("api", `line ${n}`)), said("web", "last"));
  const rows = shown(model);
  assert.equal(rows.items[rowOf(rows, 1)].message.content, "line 1");
  assert.equal(rows.items[rowOf(rows, 6)].type, "fold");
  assert.equal(rows.items[rowOf(rows, 12)].message.content, "last");
  assert.equal(rowOf(shown(model, { who: "=web" }), 1), -1);
  assert.equal(rowOf(shown(emptyModel()), 0), -1);
});

test("filters: by and to whom, where, what kind", () => {
  const model = heard(
    said("api", "to all"), said("web", "to api", { recipient: "api" }), said("web", "in x", { recipient: "#x" }), notice("api joined"),
    said("human", "ruled", { origin: "operator" }), said("human", "recap", { origin: "operator", kind: "answer" }), said("operator", "forged"),
  );
  assert.deepEqual(contents(shown(model, { who: "=api" })), ["to all", "to api"]);
  assert.deepEqual(contents(shown(model, { who: "operator" })), ["ruled", "recap"]);
  assert.deepEqual(contents(shown(model, { who: "hub" })), ["api joined"]);
  assert.deepEqual(contents(shown(model, { scope: "#x" })), ["in x"]);
  assert.deepEqual(contents(shown(model, { scope: "direct" })), ["to api"]);
  assert.deepEqual(contents(shown(model, { kind: "answer" })), ["recap"]);
  assert.deepEqual(contents(shown(model, { kind: "system" })), ["api joined"]);
  assert.ok(isNarrow({ ...emptyFilter(), kind: "answer" }) && !isNarrow({ ...emptyFilter(), needle: "x" }));
});

test("a search finds words and senders in any case, shows all or only what was found, and folds nothing", () => {
  const model = heard(...Array.from({ length: 12 }, (_, n) => said("api", `line ${n}`)), said("Lineman", "hello"), said("web", "the LINE"));
  const rows = shown(model, { needle: "line" });
  assert.equal(rows.hits.length, 14);
  assert.equal(contents(rows).length, 14);
  assert.deepEqual(contents(shown(model, { needle: "the line", only: true })), ["the LINE"]);
  assert.deepEqual(shown(model, { needle: "nowhere" }).hits, []);
});

test("rows of what the log forgets are forgotten, and the rest keeps its places", () => {
  const model = emptyModel();
  const rows = emptyRows(emptyFilter(), true);
  let dropped = 0;
  for (let n = 0; n < LOG_MAX + 1100; n += 1) {
    apply(model, { type: "message", message: said(n % 2 ? "api" : "web", `${n}`) }, 0);
    if (n % 50 === 0) dropped += advance(rows, model).dropped;
  }
  dropped += advance(rows, model).dropped;
  assert.ok(dropped >= 1000);
  assert.ok(rows.items[0].index >= model.logStart);
  assert.equal(rows.items.at(-1).message.content, `${LOG_MAX + 1099}`);
});

test("a thread is shown alone, or folded to its first message, and other words stay", () => {
  const q = said("web", "q");
  const model = heard(q, said("ops", "aside"), said("api", "a", { reply_to: q.seq }), said("ops", "b", { reply_to: q.seq }));
  assert.deepEqual(contents(shown(model, { thread: q.id })), ["q", "a", "b"]);
  assert.ok(isNarrow({ ...emptyFilter(), thread: q.id }));
  assert.deepEqual(contents(shown(model, {}, new Set(), { collapsed: new Set([q.id]) })), ["q", "aside"]);
  assert.deepEqual(contents(shown(model, { thread: model.log[1].id })), ["aside"], "a message without answers is a thread of one");
});

test("a filter by fate shows what nobody has fetched, or what has no answer", () => {
  const model = heard(said("web", "a"), said("web", "b"), said("web", "c"));
  const [a, b, c] = model.log;
  const receipt = (message, more) => ({ id: message.id, seq: message.seq, queued: 0, fetched: 0, acknowledged: 0, answered: 0, lost: 0, who: null, ...more });
  apply(model, { type: "receipts", since: 1, changed: [receipt(a, { queued: 1, fetched: 3 }), receipt(b, { acknowledged: 2 }), receipt(c, { lost: 1 })] }, 0);
  apply(model, { type: "owed", owed: [{ seq: b.seq, asker: "web", to: "api", text: "b", ts: NOON }] }, 0);
  const contentsOf = (fate) => contents(shown(model, { fate }, new Set(), { having: havingFate(model, fate) }));
  assert.deepEqual([contentsOf("unfetched"), contentsOf("unanswered"), contentsOf("")], [["a", "c"], ["b"], ["a", "b", "c"]]);
});

test("one thing alone: a peer's words and the words to it, a lane, the operator; notices are none of it", () => {
  const model = heard(said("ann", "to all"), said("ann", "to bob", { recipient: "bob" }), said("bob", "back", { recipient: "ann" }), said("bob", "in plans", { recipient: "#plans" }),
    said("human", "to bob too", { origin: "operator", recipient: "bob" }), said("bob", "to you", { recipient: "human" }), notice("ann joined"));
  const alone = (only) => contents(shown(model, { alone: only }));
  assert.deepEqual(alone("=ann"), ["to all", "to bob", "back"]);
  assert.deepEqual(alone("ann ↔ bob"), ["to bob", "back"]);
  assert.deepEqual(alone("#plans"), ["in plans"]);
  assert.deepEqual(alone("all"), ["to all"]);
  assert.deepEqual(alone("operator"), ["to bob too", "to you"]);
  assert.deepEqual(alone("bob ↔ human"), ["to bob too", "to you"]);
});

test("what is muted is left out and counted, but for words to the operator, what is looked for, and what is shown alone", () => {
  const model = heard(said("ann", "a", { recipient: "bob" }), said("bob", "b", { recipient: "ann" }), said("ann", "@operator help", { recipient: "bob" }), said("ann", "to all"),
    said("human", "mine", { origin: "operator", recipient: "bob" }), said("ann", "to you", { recipient: "human" }));
  const mutes = new Set(["ann ↔ bob", "=carl"]);
  const rows = shown(model, {}, new Set(), { mutes });
  assert.deepEqual(contents(rows), ["@operator help", "to all", "mine", "to you"]);
  assert.deepEqual([...rows.muted], [["ann ↔ bob", 2]]);
  assert.deepEqual(contents(shown(model, { needle: "b" }, new Set(), { mutes })).includes("b"), true);
  assert.equal(contents(shown(model, { alone: "ann ↔ bob" }, new Set(), { mutes })).length, 3);
  assert.deepEqual(contents(shown(model, {}, new Set(), { mutes: new Set(["=ann"]) })), ["b", "@operator help", "mine", "to you"]);
});

test("the mark of where one was stands once, before the first row from there on, and no breath goes over it", () => {
  const lines = Array.from({ length: 20 }, (_, n) => said("ann", String(n), { ts: NOON + n }));
  const rows = shown(heard(...lines), {}, new Set(), { here: 6 });
  assert.deepEqual(types(rows), ["day", ...Array(6).fill("message"), "here", "message", "message", "message", "fold", "message"]);
  assert.equal(rowOf(rows, 6), 8);
  const narrow = shown(heard(...lines.slice(0, 6), said("bob", "x", { ts: NOON + 7 }), said("ann", "y", { ts: NOON + 8 })), { who: "=ann" }, new Set(), { here: 6 });
  assert.deepEqual(types(narrow).slice(-2), ["here", "message"]);
  assert.equal(types(shown(heard(...lines), {}, new Set(), { here: 20 })).includes("here"), false);
});
