// The console's pure model. Run: node --test tests/ui/
import test from "node:test";
import assert from "node:assert/strict";
import { LOG_MAX, ageText, apply, applyLink, audienceOf, emptyModel, hueOf, indexOf, isOpen, isOperator, logEnd, noteSent, perMinute, saidAs, threadOf, costText, usageExactly, usageOf, usageText, isHeld, laneOf, loopOf } from "../../ui/model.js";

const NOW = 1_795_384_800_000;
let lastId = 0;

function said(sender, content, more = {}) {
  lastId += 1;
  return { id: `m${lastId}`, sender, recipient: "all", content, kind: "message", ts: NOW / 1000, seq: lastId, origin: "agent", ...more };
}
function peer(name, more = {}) {
  return { name, state: "live", listening: true, paused: false, status: null, status_age: null, last_seen_age: 0, uptime: 1, msg_count: 0, quiet: false, status_stale: false, ...more };
}
function form(id, more = {}) {
  const fields = [{ key: "k", label: "Which?", type: "radio", options: ["x", "y"], required: true, allow_other: false }];
  return { id, title: "Q?", asker: "api", to: "all", fields, status: "pending", answers: null, ts: NOW / 1000, seq: 0, ...more };
}
function snapshot(more = {}) {
  return { type: "snapshot", room: "r1", mode: "running", peers: [], channels: {}, floors: {}, forms: [], log: [], health: { uptime: 100 }, rate: { refill_rate: 2, capacity: 10 }, ...more };
}
const live = (message) => ({ type: "message", message });
const contents = (model) => model.log.map((message) => message.content);
const opened = (more) => apply(emptyModel(), snapshot(more), NOW);

test("a snapshot fills every part", () => {
  const model = opened({ mode: "paused", peers: [peer("api")], channels: { "#x": { topic: null, members: ["api"] } },
    floors: { all: { scope: "all", holder: "api", reason: null, hands: [], since: 1 } }, forms: [form("f")], log: [said("api", "hello")] });
  assert.equal(model.mode, "paused");
  assert.equal(model.peers[0].name, "api");
  assert.equal(model.peersAt, NOW);
  assert.deepEqual(Object.keys(model.channels), ["#x"]);
  assert.equal(model.floors.all.holder, "api");
  assert.equal(model.forms.length, 1);
  assert.deepEqual(contents(model), ["hello"]);
  assert.equal(model.health.uptime, 100);
  assert.equal(model.rate.capacity, 10);
});

test("a message that comes twice is shown once", () => {
  const message = said("api", "once");
  const model = apply(opened(), live(message));
  apply(model, live({ ...message }));
  assert.deepEqual(contents(model), ["once"]);
});

test("a reconnect adds what was missed and repeats nothing", () => {
  const [a, b, c] = [said("api", "a"), said("api", "b"), said("api", "c")];
  const model = opened({ log: [a, b] });
  apply(model, snapshot({ log: [a, b, c], health: { uptime: 130 } }), NOW + 30_000);
  assert.deepEqual(contents(model), ["a", "b", "c"]);
});

test("a hub that started anew is told from a gap in the conversation", () => {
  const restarted = apply(opened({ log: [said("api", "before")] }), snapshot({ room: "r2", log: [said("api", "after")] }), NOW + 1_000);
  assert.match(restarted.log[1].content, /started anew/);
  const gap = apply(opened({ log: [said("api", "before")] }), snapshot({ log: [said("api", "much later")], health: { uptime: 2 } }), NOW + 60_000);
  assert.match(gap.log[1].content, /missing/);
  assert.equal(gap.log[1].kind, "marker");
});

test("an agent that names itself marker or console makes no marker", () => {
  const model = apply(opened(), live(said("console", "The hub started anew.")));
  assert.equal(model.log[0].kind, "message");
});

test("the log is bounded and its numbering goes on", () => {
  const model = opened();
  const total = LOG_MAX + 1200;
  for (let n = 0; n < total; n += 1) apply(model, live(said("api", String(n))));
  assert.equal(logEnd(model), total);
  assert.ok(model.log.length <= LOG_MAX + 500 && model.log.length >= LOG_MAX);
  assert.equal(model.log[0].content, String(model.logStart));
  assert.equal(model._indexes.size, model.log.length);
});

test("mode, channels, floors, peers, rate and agents are replaced by their frames", () => {
  const model = opened();
  apply(model, { type: "mode", mode: "stopped" });
  apply(model, { type: "channels", channels: { "#y": { topic: "t", members: [] } } });
  apply(model, { type: "floor", floors: { "#y": { scope: "#y", holder: "web", reason: "r", hands: [], since: 1 } } });
  apply(model, { type: "peers", peers: [peer("web")] }, NOW + 1);
  apply(model, { type: "rate", rate: { refill_rate: 3, capacity: 12 } });
  apply(model, { type: "agents", agents: [{ name: "bot" }] });
  assert.equal(model.mode, "stopped");
  assert.equal(model.channels["#y"].topic, "t");
  assert.equal(model.floors["#y"].holder, "web");
  assert.equal(model.peers[0].name, "web");
  assert.equal(model.rate.refill_rate, 3);
  assert.equal(model.agents[0].name, "bot");
});

test("health brings the figures and the peers' fresh ages", () => {
  const model = apply(opened(), { type: "health", health: { uptime: 5, peer_count: 1 }, peers: [peer("api", { last_seen_age: 3 })] }, NOW + 1500);
  assert.equal(model.health.uptime, 5);
  assert.equal(model.peers[0].last_seen_age, 3);
  assert.equal(model.peersAt, NOW + 1500);
});

test("a part that a frame does not concern keeps its identity, so its panel skips", () => {
  const model = opened({ forms: [form("f")] });
  const before = { ...model };
  apply(model, live(said("api", "hello")));
  for (const part of ["peers", "channels", "floors", "forms", "settled", "refusals", "waiting"]) assert.equal(model[part], before[part], part);
});

test("a form goes from pending to settled, told by form_resolved", () => {
  const model = opened();
  apply(model, { type: "form", form: form("f1") });
  apply(model, { type: "form_resolved", id: "f1", status: "answered", answers: { k: ["x", "y"] } }, NOW);
  assert.equal(model.forms.length, 0);
  assert.deepEqual(model.settled[0].answers, [["Which?", "x, y"]]);
});

test("an answer message and form_resolved settle a form once, in either order", () => {
  const answer = live(said("human", "recap", { kind: "answer", origin: "operator", meta: { form_id: "f1", title: "Q?", status: "answered", answers: { k: "x" }, asker: "api", to: "all" } }));
  const resolved = { type: "form_resolved", id: "f1", status: "answered", answers: { k: "x" } };
  for (const order of [[answer, resolved], [resolved, answer]]) {
    const model = opened({ forms: [form("f1")] });
    for (const frame of order) apply(model, frame, NOW);
    assert.equal(model.forms.length, 0);
    assert.equal(model.settled.length, 1);
    assert.equal(model.settled[0].asker, "api");
  }
});

test("a form settled while this page was away is found in the log", () => {
  const message = said("human", "recap", { kind: "answer", origin: "operator", meta: { form_id: "f1", title: "Q?", status: "cancelled", answers: null, asker: "api", to: "all" } });
  const model = apply(opened({ forms: [form("f1")] }), snapshot({ log: [message] }), NOW);
  assert.equal(model.forms.length, 0);
  assert.deepEqual([model.settled[0].status, model.settled[0].answers], ["cancelled", []]);
});

test("a refused answer stays on its form, with the field that it names", () => {
  const model = opened({ forms: [form("f1"), form("f2")] });
  noteSent(model, { answer: { id: "f1", answers: {} } });
  assert.ok(model.waiting.has("f1"));
  apply(model, { type: "error", reason: "invalid_answer", command: "answer", detail: "Which? needs an answer", field: "k", id: "f1" });
  assert.deepEqual(model.refusals.get("f1"), { field: "k", text: "Which? needs an answer" });
  assert.ok(!model.waiting.has("f1"));
  assert.equal(model.forms.length, 2);
  assert.equal(model.notices.length, 0);
});

test("a refused answer without an id belongs to the form that waits, and a new answer clears it", () => {
  const model = opened({ forms: [form("f1"), form("f2")] });
  noteSent(model, { answer: { id: "f2", answers: {} } });
  apply(model, { type: "error", reason: "invalid_answer", command: "answer", detail: "no", field: "k" });
  assert.ok(model.refusals.has("f2"));
  noteSent(model, { answer: { id: "f2", answers: {} } });
  assert.ok(!model.refusals.has("f2"));
});

test("a refusal for a form that is gone becomes a notice", () => {
  const model = apply(opened(), { type: "error", reason: "unknown_form", command: "answer", detail: "already settled", id: "f9" });
  assert.match(model.notices[0].text, /already settled/);
  assert.equal(model.notices[0].tone, "refused");
});

test("an observer's refusal speaks of observing", () => {
  const model = apply(opened(), { type: "error", reason: "forbidden", command: "kick" });
  assert.match(model.notices[0].text, /observing/);
});

test("the role outlives a cut line, the openness does not", () => {
  const model = applyLink(emptyModel(), { state: "open", role: "operator", auth: true, since: NOW });
  applyLink(model, { state: "closed", since: NOW, retryAt: NOW + 500 });
  assert.ok(isOperator(model) && !isOpen(model) && model.link.auth);
});

test("a heartbeat result becomes a sentence", () => {
  const model = opened();
  apply(model, { type: "heartbeat_result", result: { peer: "api", state: "live", present: true, last_seen_age: 2, listening: false } });
  apply(model, { type: "heartbeat_result", result: { peer: "zz", state: "absent", present: false } });
  assert.deepEqual(model.notices.map((notice) => notice.text), ["api is live, not listening, last heard 2 s ago.", "zz is not in the room."]);
});

test("unknown and misshapen frames change nothing", () => {
  const model = opened({ log: [said("api", "hello")] });
  for (const frame of [null, 7, "x", [], {}, { type: "constructor" }, { type: "toString" }, { type: "brand-new", x: 1 }, { type: "message" }]) apply(model, frame);
  assert.equal(model.log.length, 1);
  assert.equal(model.mode, "running");
});

test("the audience comes from recipient, origin and seq", () => {
  assert.equal(audienceOf(said("api", "x")), "broadcast");
  assert.equal(audienceOf(said("api", "x", { recipient: "#x" })), "channel");
  assert.equal(audienceOf(said("api", "x", { recipient: "web" })), "direct");
  assert.equal(audienceOf(said("hub", "x", { origin: "hub", kind: "system", seq: 0 })), "notice");
  assert.equal(audienceOf(said("hub", "x", { origin: "hub", kind: "system", seq: 4 })), "broadcast");
  assert.equal(audienceOf(said("hub", "x", { origin: "agent", kind: "system", seq: 0 })), "broadcast");
});

test("a hue is the name's own: in whatever order peers come, and whoever is there", () => {
  const names = Array.from({ length: 16 }, (_, n) => `peer-${n}`);
  const huesIn = (model) => names.map((name) => hueOf(model, name));
  const hues = huesIn(opened({ peers: names.map((name) => peer(name)) }));
  assert.deepEqual(huesIn(opened({ peers: [peer("one-more"), ...names.toReversed().map((name) => peer(name)), peer("__proto__")] })), hues);
  assert.deepEqual(huesIn(apply(opened(), live(said("peer-3", "x")))), hues);
  assert.ok(hues.every((hue) => Number.isInteger(hue) && hue >= 0 && hue < 720));
  assert.ok(new Set(hues).size > 14);
});

test("ages are told in at most two units", () => {
  assert.deepEqual([-1, 0, 59.4, 60, 3599, 3600, 7500, 90000].map(ageText), ["0 s", "0 s", "59 s", "1 min", "59 min", "1 h", "2 h 5 min", "1 d 1 h"]);
});

// ---- what was added for the reading seat ----

test("a tree comes with its message, live or in the snapshot, and goes with it", () => {
  const early = said("api", "*a*");
  const model = opened({ log: [early], trees: { [early.id]: [{ type: "paragraph" }] } });
  assert.deepEqual(model.trees.get(early.id), [{ type: "paragraph" }]);
  apply(model, { ...live(said("api", "*b*")), tree: [{ type: "list" }] }, NOW);
  assert.deepEqual([...model.trees.values()], [[{ type: "paragraph" }], [{ type: "list" }]]);
  for (let n = 0; n < LOG_MAX + 600; n += 1) apply(model, live(said("api", String(n))));
  assert.equal(model.trees.size, 0);
  assert.equal(indexOf(model, early.id), -1);
});

test("a channel's traffic goes on from what the hub counted, once per message", () => {
  const before = said("api", "before", { recipient: "#x" });
  const model = opened({ log: [before], channels: { "#x": { topic: "t", members: ["api"], msg_count: 1, char_count: 6, last_ts: NOW / 1000 } } });
  const first = model.channels;
  const message = said("api", "four", { recipient: "#x", ts: NOW / 1000 + 9 });
  apply(model, live(message), NOW + 9000);
  apply(model, live({ ...message }), NOW + 9000);
  assert.deepEqual(model.channels["#x"], { topic: "t", members: ["api"], msg_count: 2, char_count: 10, last_ts: NOW / 1000 + 9 });
  assert.notEqual(model.channels, first);
  assert.equal(perMinute(model, "#x", NOW + 10_000), 2);
  assert.equal(perMinute(model, "#x", NOW + 65_000), 1);
  assert.equal(perMinute(model, "#y", NOW), 0);
});

test("figures are kept for the charts, for ten minutes", () => {
  const model = opened();
  for (let n = 0; n < 700; n += 1) apply(model, { type: "health", health: { uptime: n, msg_per_min: n, char_per_min: 2 * n, queue_depth: 3, mem_rss_mb: null } }, NOW + n * 1500);
  assert.equal(model.history.length, 400);
  assert.deepEqual(model.history.at(-1), { at: NOW + 699 * 1500, msgs: 699, chars: 1398, queue: 3, mem: null });
});

const receipt = (id, seq, more) => ({ id, seq, queued: 0, fetched: 0, acknowledged: 0, answered: 0, lost: 0, who: null, ...more });
const receipts = (since, ...changed) => ({ type: "receipts", since, changed });

test("receipts are kept as they change, with the moment in which this page saw it", () => {
  const model = opened({ log: [said("web", "old", { ts: NOW / 1000 - 500 })] });
  const [old] = model.log;
  apply(model, receipts(1, receipt(old.id, old.seq, { acknowledged: 1, who: { api: "acknowledged" } })), NOW);
  assert.equal(model.receipts.get(old.id).at.get("api"), null, "when that was, this page did not see");
  const fresh = said("web", "new");
  apply(model, live(fresh), NOW);
  const before = model.receipts;
  apply(model, receipts(1, receipt(fresh.id, fresh.seq, { queued: 1, fetched: 1, who: { api: "queued", constructor: "fetched" } })), NOW + 1000);
  apply(model, receipts(1, receipt(fresh.id, fresh.seq, { fetched: 2, who: { api: "fetched", constructor: "fetched" } })), NOW + 9000);
  assert.notEqual(model.receipts, before);
  assert.deepEqual([...model.receipts.get(fresh.id).at], [["api", NOW + 9000], ["constructor", NOW + 1000]]);
});

test("what the hub follows no more is not shown as if it were known", () => {
  const model = opened({ log: [said("web", "a"), said("web", "b"), said("web", "c")] });
  const [a, b, c] = model.log;
  apply(model, receipts(a.seq, receipt(a.id, a.seq, { queued: 1 }), receipt(b.id, b.seq, { answered: 1 }), receipt(c.id, c.seq, { queued: 1 })), NOW);
  apply(model, receipts(c.seq), NOW);
  assert.deepEqual([...model.receipts.keys()], [b.id, c.id], "answered stays answered");
});

test("answers are threads, whether or not their beginning is here", () => {
  const model = opened({ log: [said("web", "q")] });
  const [q] = model.log;
  const [one, two, far, near] = [said("api", "1", { reply_to: q.seq }), said("ops", "2", { reply_to: q.seq + 1 }), said("api", "3", { reply_to: 100_000 }), said("web", "4", { reply_to: 100_000 })];
  for (const message of [one, two, far, near]) apply(model, live(message), NOW);
  assert.deepEqual(model.threads.get(q.id), [q.id, one.id, two.id]);
  assert.equal(threadOf(model, two.id), q.id);
  assert.deepEqual(model.threads.get(threadOf(model, far.id)), [far.id, near.id]);
  assert.equal(saidAs(model, one.seq), one);
  apply(model, snapshot({ room: "r2" }), NOW + 60_000);
  assert.equal(saidAs(model, one.seq), undefined, "a new room counts anew");
  const other = said("api", "5", { seq: 2, reply_to: 1 });
  apply(model, live(other), NOW + 60_001);
  assert.notEqual(threadOf(model, other.id), q.id);
});

test("what is owed, the house rules and the fates of one message are taken as they come", () => {
  const model = opened({ owed: [{ seq: 1, asker: "web", to: "api", text: "?", ts: 1 }], rules: { text: "x", version: 2 } });
  assert.deepEqual([model.owed.length, model.rules.version], [1, 2]);
  apply(model, { type: "owed", owed: [] }, NOW);
  apply(model, { type: "rules", text: "y", version: 3 }, NOW);
  apply(model, { type: "receipt", seq: 7, who: { api: "queued" }, more: 3 }, NOW);
  assert.deepEqual([model.owed, model.rules, model.fates], [[], { text: "y", version: 3 }, { seq: 7, who: { api: "queued" }, more: 3, at: new Map([["api", null]]) }]);
  apply(model, { type: "receipt", seq: 7, who: { api: "fetched" }, more: 3 }, NOW + 5);
  assert.equal(model.fates.at.get("api"), NOW + 5);
});

test("the ledger fills the settled forms, and keeps what this page knew better", () => {
  const model = opened({ forms: [form("f")] });
  apply(model, { type: "form_resolved", id: "f", status: "answered", answers: { k: "x" } }, NOW + 2000);
  const decisions = [
    { ts: NOW / 1000 - 60, asker: "web", title: "Old", status: "cancelled", answer_summary: "cancelled: no", id: "e", to: "#x", asked_ts: NOW / 1000 - 90, reason: "no" },
    { ts: NOW / 1000 + 2, asker: "api", title: "Q?", status: "answered", answer_summary: "Which?: x", id: "f", to: "all", asked_ts: NOW / 1000, reason: null },
  ];
  apply(model, snapshot({ decisions }), NOW + 3000);
  assert.deepEqual(model.settled.map(({ id, status, reason, answers }) => [id, status, reason, answers]), [
    ["f", "answered", null, [["Which?", "x"]]],
    ["e", "cancelled", "no", []],
  ]);
  assert.equal(model.settled[1].askedAt, NOW - 90_000);
});

const notice = (content, more = {}) => said("hub", content, { kind: "system", seq: 0, origin: "hub", ...more });
const spans = (model, kind) => model.spans.filter((span) => span.kind === kind).map(({ word, who, from, to }) => [word, who, from, to]);

test("what lasted is known from the hub's notices: a pause of the room, and of a peer", () => {
  const model = opened({ peers: [peer("api")] });
  apply(model, live(notice("control: paused")), NOW);
  apply(model, live(notice("control: stopped", { ts: NOW / 1000 + 5 })), NOW + 5000);
  apply(model, live(notice("api paused by the operator", { ts: NOW / 1000 + 6 })), NOW + 6000);
  apply(model, live(notice("control: running", { ts: NOW / 1000 + 8 })), NOW + 8000);
  assert.deepEqual(spans(model, "mode"), [["paused", null, NOW, NOW + 5000], ["stopped", null, NOW + 5000, NOW + 8000]]);
  assert.deepEqual(spans(model, "pause"), [["paused", "api", NOW + 6000, null]]);
  apply(model, live(notice("api resumed by the operator", { ts: NOW / 1000 + 9 })), NOW + 9000);
  assert.equal(spans(model, "pause")[0][3], NOW + 9000);
  assert.equal(model.modeAt, NOW + 8000);
});

test("no text of a peer, and no topic, makes anything last", () => {
  const model = opened({ peers: [peer("api")] });
  apply(model, live(said("api", "control: stopped")), NOW);
  apply(model, live(notice("control: stopped", { seq: 9 })), NOW);
  apply(model, live(notice("bob set the topic of #x: api paused by the operator")), NOW);
  apply(model, live(notice("bob asks the operator: control: stopped")), NOW);
  assert.deepEqual(model.spans, []);
});

test("sticks and forms last from frame to frame, by the hub's clock", () => {
  const skew = 3_600_000; // this browser's clock is an hour off
  const model = opened({ health: { uptime: 1 } });
  apply(model, { type: "floor", floors: { all: { scope: "all", holder: "api", reason: "merging", hands: [], since: NOW / 1000 } } }, NOW + skew);
  apply(model, { type: "form", form: form("f") }, NOW + skew);
  apply(model, live(said("api", "done", { ts: NOW / 1000 + 10 })), NOW + skew + 10_000);
  apply(model, { type: "floor", floors: {} }, NOW + skew + 12_000);
  apply(model, { type: "form_resolved", id: "f", status: "cancelled" }, NOW + skew + 13_000);
  assert.deepEqual(spans(model, "stick"), [["talking stick", "api", NOW, NOW + 12_000]]);
  assert.deepEqual(spans(model, "form"), [["asks the operator", "api", NOW, NOW + 13_000]]);
});

test("what began or ended while this page was away is mended by the snapshot", () => {
  const model = opened({ mode: "paused", peers: [peer("api", { paused: true })], floors: { "#x": { scope: "#x", holder: "web", reason: null, hands: [], since: NOW / 1000 - 50 } } });
  assert.deepEqual(spans(model, "mode"), [["paused", null, NOW, null]]);
  assert.deepEqual(spans(model, "pause"), [["paused", "api", NOW, null]]);
  assert.deepEqual(spans(model, "stick"), [["talking stick", "web", NOW - 50_000, null]]);
  apply(model, snapshot({ peers: [peer("api")] }), NOW + 60_000);
  assert.ok(model.spans.every((span) => span.to === NOW + 60_000));
});

const usage = (more = {}) => ({ model: "claude", turns: 12, input_tokens: 45_000, output_tokens: 3_123, cost_usd: 0.312, ...more });

test("usage reads at a glance and to the token", () => {
  assert.equal(usageText(usage()), "12 turns · 48k tokens · $0.31");
  assert.equal(usageExactly(usage()), "12 turns, 45,000 input and 3,123 output tokens, $0.312");
  assert.equal(usageText(usage({ turns: 1, input_tokens: 900, output_tokens: 50, cost_usd: 0.001 })), "1 turn · 950 tokens · under $0.01");
  assert.equal(usageText(usage({ turns: 1234, input_tokens: 1.2e6, output_tokens: 0, cost_usd: 1234.5 })), "1,234 turns · 1.2M tokens · $1,234.50");
  assert.equal(usageText(usage({ turns: 0, input_tokens: 0, output_tokens: 0, cost_usd: 0 })), "0 turns · 0 tokens · $0.00");
});

test("a model without a price has no dollars", () => {
  assert.equal(usageText(usage({ cost_usd: null })), "12 turns · 48k tokens");
  assert.match(usageExactly(usage({ cost_usd: null })), /no known price/);
});

test("the cost of the room is the sum of what its peers say", () => {
  const silent = { name: "web", usage: null };
  const total = usageOf([{ usage: usage() }, silent, { name: "of an older hub" }, { usage: usage({ turns: 84, cost_usd: 0.96 }) }, { usage: usage({ turns: 4, cost_usd: null }) }]);
  assert.deepEqual([total.turns, total.input_tokens, total.output_tokens], [100, 135_000, 9_369]);
  assert.deepEqual([total.peers, total.unpriced], [3, 1]);
  assert.equal(costText(total), "$1.27, 100 turns");
  assert.equal(costText(usageOf([{ usage: usage({ cost_usd: null }) }])), "12 turns");
  assert.equal(usageOf([silent]), null);
});

// ---- lanes that go round in circles

const lane = (more = {}) => ({ lane: "api ↔ web", state: "held", ts: NOW / 1000, credit: 0, waiting: 0, waits_from: 0, kind: "thanks", level: "hold", count: 9, of: 12,
  names: ["api", "web"], first_seq: 1, last_seq: 9, words: "9 of 12 only thank", ...more });
const looping = (...lanes) => ({ type: "loops", upto: "hold", release: 0, lanes });

test("lanes that go round in circles come with the snapshot, change one by one, and go with a stop or another room", () => {
  const model = opened({ loops: looping(lane()) });
  assert.equal(loopOf(model, "api ↔ web").words, "9 of 12 only thank");
  const before = model.loops;
  apply(model, { type: "loop", lane: "#x", loop: lane({ lane: "#x", state: "watched", level: "hint" }) }, NOW);
  assert.notEqual(model.loops, before, "a panel sees by the reference that it changed");
  apply(model, { type: "loop", lane: "api ↔ web", loop: lane({ state: "closed" }) }, NOW);
  assert.deepEqual(model.loops.lanes.map(({ lane, state }) => [lane, state]), [["api ↔ web", "closed"], ["#x", "watched"]]);
  apply(model, { type: "loop", lane: "#x", loop: null }, NOW);
  assert.equal(loopOf(model, "#x"), undefined);
  apply(model, { type: "loops", upto: "slow", release: 60, lanes: [] }, NOW);
  assert.deepEqual(model.loops, { upto: "slow", release: 60, lanes: [] });
  apply(model, looping(lane()), NOW);
  apply(model, snapshot({ room: "r2", loops: { upto: "hold", release: 0, lanes: [] } }), NOW);
  assert.deepEqual(model.loops.lanes, []);
});

test("what waits in a held lane is known by its lane, its sender and its seq", () => {
  const model = opened({ loops: looping(lane({ waiting: 2, waits_from: 10 })) });
  const to = (sender, recipient, seq, more = {}) => said(sender, "thanks", { recipient, seq, ...more });
  for (const held of [to("api", "web", 10), to("web", "api", 11)]) assert.equal(isHeld(model, held), true);
  const free = [to("api", "web", 9), to("api", "all", 12), to("api", "human", 12), to("api", "ops", 12), to("human", "web", 12, { origin: "operator" })];
  for (const other of free) assert.equal(isHeld(model, other), false, JSON.stringify(other));
  apply(model, { type: "loop", lane: "api ↔ web", loop: lane({ state: "watched", credit: 20 }) }, NOW);
  assert.equal(isHeld(model, to("api", "web", 10)), false, "it was released");
});

test("a lane has one name from both sides, in the hub's order", () => {
  assert.equal(laneOf(said("web", "hi", { recipient: "api" })), "api ↔ web");
  assert.equal(laneOf(said("\u{1F600}", "hi", { recipient: "\uffee" })), "\uffee ↔ \u{1F600}", "by code points");
  assert.equal(laneOf(said("web", "hi", { recipient: "#x" })), "#x");
});

test("since when a lane is held is drawn, until it is not", () => {
  const model = opened({ loops: looping(lane()) });
  assert.deepEqual(model.spans.filter(({ kind }) => kind === "loop").map(({ word, scope, from, to }) => [word, scope, from, to]), [["held", "api ↔ web", NOW, null]]);
  apply(model, { type: "loop", lane: "api ↔ web", loop: lane({ state: "closed", ts: NOW / 1000 + 5 }) }, NOW + 5_000);
  assert.deepEqual(model.spans.filter(({ kind }) => kind === "loop").map(({ word, from, to }) => [word, from, to]), [["held", NOW, NOW + 5_000], ["closed", NOW + 5_000, null]]);
});
