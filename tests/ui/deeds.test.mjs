// The operator's deeds: from asked to effective, refused or unknown.

import assert from "node:assert/strict";
import { test } from "node:test";
import { emptyDeeds, hear, isLate, listed, lose, note, stopReach, waiting, wordsOf } from "../../ui/deeds.js";
import { apply, emptyModel } from "../../ui/model.js";
import { sureOf } from "../../ui/sure.js";

const T0 = 1_700_000_000_000;

function room(...peers) {
  const model = emptyModel();
  apply(model, { type: "snapshot", mode: "running", peers: peers.map((peer) => row(peer)), channels: {}, floors: {}, forms: [], log: [], health: { uptime: 1 }, rate: { refill_rate: 2, capacity: 10 } }, T0);
  return model;
}

const row = (peer) => ({ name: "api", state: "live", listening: true, paused: false, msg_count: 0, waiting: 0, stop_told: null, ...(typeof peer === "string" ? { name: peer } : peer) });

/** The hub speaks: the model takes it, then the deeds hear of it. */
function hub(deeds, model, frame, now = T0 + 10) {
  apply(model, frame, now);
  hear(deeds, model, frame, now);
}

test("a deed is asked until the room shows it, and then effective", () => {
  const [model, deeds] = [room("api"), emptyDeeds()];
  note(deeds, model, { action: "pause" }, T0);
  assert.equal(deeds.list[0].state, "asked");
  assert.equal(waiting(deeds, "action").word, "Pause");
  hub(deeds, model, { type: "health", health: {}, peers: [row("api")] });
  assert.equal(deeds.list[0].state, "asked", "a health frame confirms nothing");
  hub(deeds, model, { type: "mode", mode: "paused" });
  assert.equal(deeds.list[0].state, "effective");
  assert.equal(waiting(deeds, "action"), null);
  assert.match(wordsOf(deeds.list[0], T0), /the room is paused/);
});

test("a stop tells how many agents it has reached, and who lacks it", () => {
  const [model, deeds] = [room("api", "web", "ops"), emptyDeeds()];
  note(deeds, model, { action: "stop" }, T0);
  hub(deeds, model, { type: "mode", mode: "stopped" });
  hub(deeds, model, { type: "peers", peers: [row({ stop_told: true }), row({ name: "ops", stop_told: false }), row({ name: "web", stop_told: false })] });
  assert.equal(wordsOf(deeds.list[0], T0), "1 of 3 agents reached, not yet ops and web; the room is stopped");
  hub(deeds, model, { type: "peers", peers: [row({ stop_told: true }), row({ name: "ops", stop_told: true }), row({ name: "web", stop_told: true })] });
  assert.equal(wordsOf(deeds.list[0], T0), "3 of 3 agents reached; the room is stopped");
  hub(deeds, model, { type: "mode", mode: "running" });
  assert.equal(stopReach(model), null, "no stop stands");
  assert.equal(wordsOf(deeds.list[0], T0), "3 of 3 agents reached; the room is stopped", "what it reached stays on record");
});

test("an older stop does not take over what a newer one reaches", () => {
  const [model, deeds] = [room("api"), emptyDeeds()];
  for (const mode of ["stopped", "running", "stopped"]) {
    note(deeds, model, { action: mode === "running" ? "reset" : "stop" }, T0);
    hub(deeds, model, { type: "mode", mode });
    hub(deeds, model, { type: "peers", peers: [row({ stop_told: mode === "stopped" ? deeds.count === 1 : null })] });
  }
  const [second, , first] = deeds.list;
  assert.deepEqual([first.told, first.untold, second.told, second.untold], [["api"], [], [], ["api"]]);
});

test("each kind of deed has its own sign in the room", () => {
  const cases = [
    [{ pause_peer: "api" }, { type: "peers", peers: [row({ paused: true }), row("web")] }],
    [{ resume_peer: "api" }, { type: "peers", peers: [row({ paused: false }), row("web")] }],
    [{ kick: "web" }, { type: "peers", peers: [row("api")] }],
    [{ set_rate: { refill_rate: 5, capacity: 20 } }, { type: "rate", rate: { refill_rate: 5, capacity: 20 } }],
    [{ heartbeat: "api" }, { type: "heartbeat_result", result: { peer: "api", present: true, state: "live", listening: true, last_seen_age: 1 } }],
    [{ say: "hello", to: "api" }, { type: "message", message: { id: "m1", seq: 1, ts: T0 / 1000, origin: "operator", kind: "message", sender: "human", recipient: "api", content: "hello" } }],
    [{ command: "interrupt", to: "api" }, { type: "message", message: { id: "m2", seq: 2, ts: T0 / 1000, origin: "operator", kind: "control", sender: "human", recipient: "api", content: "interrupt" } }],
  ];
  for (const [frame, sign] of cases) {
    const [model, deeds] = [room({ name: "api", paused: "resume_peer" in frame }, "web"), emptyDeeds()];
    note(deeds, model, frame, T0);
    hub(deeds, model, { type: "mode", mode: "running" });
    assert.equal(deeds.list[0].state, "asked", JSON.stringify(frame));
    hub(deeds, model, sign);
    assert.equal(deeds.list[0].state, "effective", JSON.stringify(frame));
  }
});

test("channels, sticks and forms: gone, or settled, is done", () => {
  const [model, deeds] = [room("api"), emptyDeeds()];
  hub(deeds, model, { type: "channels", channels: { "#x": { members: ["api"], topic: null } } });
  hub(deeds, model, { type: "floor", floors: { "#x": { scope: "#x", holder: "api", hands: [], since: 1 } } });
  hub(deeds, model, { type: "form", form: { id: "f", title: "Go?", asker: "api", to: "all", fields: [], ts: 1 } });
  note(deeds, model, { close_channel: "#x" }, T0);
  note(deeds, model, { floor: { action: "clear", scope: "#x" } }, T0);
  note(deeds, model, { cancel_form: "f", reason: "no" }, T0);
  hub(deeds, model, { type: "floor", floors: {} });
  hub(deeds, model, { type: "channels", channels: {} });
  hub(deeds, model, { type: "form_resolved", id: "f", status: "cancelled" });
  assert.deepEqual(deeds.list.map((deed) => deed.state), ["effective", "effective", "effective"]);
});

test("only the operator's own words confirm speech", () => {
  const [model, deeds] = [room("api"), emptyDeeds()];
  note(deeds, model, { say: "stop it", to: "all" }, T0);
  hub(deeds, model, { type: "message", message: { id: "m", seq: 1, ts: T0 / 1000, origin: "agent", kind: "message", sender: "human", recipient: "all", content: "stop it" } });
  assert.equal(deeds.list[0].state, "asked");
});

test("what is said twice is heard twice, whatever the hub's clock says", () => {
  const [model, deeds] = [room("api"), emptyDeeds()];
  const heard = (id) => ({ type: "message", message: { id, seq: 1, ts: T0 / 1000 - 3600, origin: "operator", kind: "message", sender: "human", recipient: "all", content: "well?" } });
  for (const at of [T0, T0 + 1]) note(deeds, model, { say: "well?", to: "all" }, at);
  hub(deeds, model, heard("m1"));
  assert.deepEqual(deeds.list.map((deed) => deed.state), ["asked", "effective"]);
  hub(deeds, model, heard("m2"));
  assert.deepEqual(deeds.list.map((deed) => deed.messageId), ["m2", "m1"]);
});

test("words that a cut line left unknown are found in the next snapshot, or not", () => {
  const [model, deeds] = [room("api"), emptyDeeds()];
  note(deeds, model, { say: "did it come through?", to: "all" }, T0);
  note(deeds, model, { say: "and this?", to: "all" }, T0);
  lose(deeds, T0 + 5);
  const message = { id: "m", seq: 1, ts: T0 / 1000, origin: "operator", kind: "message", sender: "human", recipient: "all", content: "did it come through?" };
  hub(deeds, model, { type: "snapshot", mode: "running", peers: [row("api")], log: [message], health: { uptime: 9 } });
  assert.deepEqual(deeds.list.map((deed) => deed.state), ["unknown", "effective"]);
});

test("receipts tell who has fetched what was said", () => {
  const [model, deeds] = [room("api", "web"), emptyDeeds()];
  note(deeds, model, { say: "hello", to: "all" }, T0);
  hub(deeds, model, { type: "message", message: { id: "m", seq: 1, ts: T0 / 1000, origin: "operator", kind: "message", sender: "human", recipient: "all", content: "hello" } });
  hub(deeds, model, { type: "receipts", since: 1, changed: [receipt({ queued: 1, fetched: 1, who: { api: "fetched", web: "queued" } })] });
  assert.equal(wordsOf(deeds.list[0], T0), "1 of 2 agents reached, not yet web; it is said");
  hub(deeds, model, { type: "receipts", since: 1, changed: [receipt({ queued: 7, fetched: 13 })] });
  assert.equal(wordsOf(deeds.list[0], T0), "13 of 20 agents reached; it is said", "of many the hub gives numbers only");
});

const receipt = (more) => ({ id: "m", seq: 1, queued: 0, fetched: 0, acknowledged: 0, answered: 0, lost: 0, who: null, ...more });

test("the hub's own word on a client_id settles it, after a cut line too", () => {
  const [model, deeds] = [room("api"), emptyDeeds()];
  note(deeds, model, { say: "once", to: "api", client_id: "c1" }, T0);
  note(deeds, model, { say: "once", to: "api", client_id: "c2" }, T0);
  lose(deeds, T0 + 5);
  assert.match(wordsOf(deeds.list[0], T0), /goes again when the line is back/);
  hub(deeds, model, { type: "said", client_id: "c1", id: "m", seq: 4 });
  hub(deeds, model, { type: "error", command: "say", client_id: "c2", reason: "unknown_peer", detail: "no api" });
  assert.deepEqual(deeds.list.map((deed) => [deed.state, deed.messageId]), [["refused", null], ["effective", "m"]]);
});

test("house rules are set when the room has them", () => {
  const [model, deeds] = [room("api"), emptyDeeds()];
  note(deeds, model, { rules: " Tests first. " }, T0);
  hub(deeds, model, { type: "health", health: {} });
  assert.equal(deeds.list[0].state, "asked");
  hub(deeds, model, { type: "rules", text: "Tests first.", version: 3 });
  assert.match(wordsOf(deeds.list[0], T0), /^version 3/);
});

test("a refusal belongs to the deed it answers, with its reason", () => {
  const [model, deeds] = [room("api"), emptyDeeds()];
  note(deeds, model, { say: "x", to: "nobody" }, T0);
  note(deeds, model, { action: "pause" }, T0);
  hub(deeds, model, { type: "error", command: "say", reason: "unknown_peer", detail: "no peer is called nobody" });
  assert.deepEqual(deeds.list.map((deed) => deed.state), ["asked", "refused"]);
  assert.equal(wordsOf(deeds.list[1], T0), "refused: no peer is called nobody");
});

test("a cut line makes what was asked unknown, until the next snapshot shows it", () => {
  const [model, deeds] = [room("api"), emptyDeeds()];
  note(deeds, model, { action: "pause" }, T0);
  note(deeds, model, { kick: "api" }, T0);
  lose(deeds, T0 + 5);
  assert.deepEqual(deeds.list.map((deed) => deed.state), ["unknown", "unknown"]);
  hub(deeds, model, { type: "snapshot", mode: "paused", peers: [row("api")], log: [], health: { uptime: 9 } });
  assert.deepEqual(deeds.list.map((deed) => deed.state), ["unknown", "effective"], "the pause came through, the kick did not show");
});

test("what is not confirmed in some seconds says so", () => {
  const [model, deeds] = [room("api"), emptyDeeds()];
  note(deeds, model, { action: "pause" }, T0);
  assert.equal(isLate(deeds.list[0], T0 + 1000), false);
  assert.equal(wordsOf(deeds.list[0], T0 + 6000), "asked 6 s ago, not confirmed");
});

test("names are listed, and many are counted", () => {
  assert.equal(listed(["a"]), "a");
  assert.equal(listed(["a", "b", "c"]), "a, b and c");
  assert.equal(listed(["a", "b", "c", "d", "e", "f"]), "a, b, c, d and 2 more");
});

test("what cannot be taken back is asked, and says what will happen", () => {
  const model = room("api", { name: "web", listening: false, waiting: 3 });
  assert.match(sureOf({ action: "stop" }, model).text, /All 2 live peers are told.* web is not listening and learns of it at the next call/);
  assert.match(sureOf({ kick: "web" }, model).text, /the 3 messages that wait in its mailbox are lost/);
  assert.equal(sureOf({ close_channel: "#x" }, model).verb, "Close the channel");
  assert.equal(sureOf({ command: "reset", to: "api" }, model).verb, "Reset the agent");
  for (const harmless of [{ action: "pause" }, { action: "resume" }, { say: "x", to: "all" }, { pause_peer: "api" }, { command: "interrupt", to: "api" }, { set_rate: {} }]) assert.equal(sureOf(harmless, model), null);
});

const LANE = "api ↔ web";
const lane = (more = {}) => ({ lane: LANE, state: "held", ts: T0 / 1000, credit: 0, waiting: 2, waits_from: 9, kind: "thanks", level: "hold", count: 9, of: 12, names: ["api"], first_seq: 1, last_seq: 9, words: "", ...more });
const tell = (loop) => ({ type: "loop", lane: LANE, loop });

test("a ruling is effective when the lane is so, and tells how many that waited are delivered", () => {
  const rulings = [
    ["continue", lane({ state: "watched", credit: 20, waiting: 0 }), "it goes on for 20 messages; 3 that waited are delivered"],
    ["close", lane({ state: "closed", waiting: 0 }), "agents say nothing there any more; 3 that waited are delivered"],
    ["run", lane({ state: "free", waiting: 0 }), "it is not held again; 3 that waited are delivered"],
  ];
  for (const [ruling, after, words] of rulings) {
    const [model, deeds] = [room("api", "web"), emptyDeeds()];
    apply(model, { type: "loops", upto: "hold", release: 0, lanes: [lane()] }, T0);
    note(deeds, model, { rule: { lane: LANE, ruling } }, T0);
    hub(deeds, model, tell(lane({ waiting: 3 })));
    assert.equal(deeds.list[0].state, "asked", "one more was said meanwhile");
    hub(deeds, model, tell(after));
    assert.equal(wordsOf(deeds.list[0], T0), words);
  }
});

test("a lane is watched again when nothing is known of it any more", () => {
  const [model, deeds] = [room("api", "web"), emptyDeeds()];
  apply(model, { type: "loops", upto: "hold", release: 0, lanes: [lane({ state: "closed", waiting: 0 })] }, T0);
  note(deeds, model, { rule: { lane: LANE, ruling: "watch" } }, T0);
  hub(deeds, model, tell(null));
  assert.equal(wordsOf(deeds.list[0], T0), "it is watched as all others are");
});

test("a ruling that comes after another's is refused, on its own lane", () => {
  const [model, deeds] = [room("api", "web"), emptyDeeds()];
  apply(model, { type: "loops", upto: "hold", release: 0, lanes: [lane(), lane({ lane: "#x" })] }, T0);
  note(deeds, model, { rule: { lane: LANE, ruling: "continue" } }, T0);
  note(deeds, model, { rule: { lane: "#x", ruling: "continue" } }, T0);
  hub(deeds, model, tell(lane({ state: "closed", waiting: 0 })));
  hub(deeds, model, { type: "error", command: "rule", reason: "unknown_loop", lane: LANE, detail: "continue is no ruling on api ↔ web: it is closed" });
  assert.deepEqual(deeds.list.map(({ state }) => state), ["asked", "refused"]);
});

test("how far loops are answered is set when the hub says so, and what was held is told of", () => {
  const [model, deeds] = [room("api", "web"), emptyDeeds()];
  apply(model, { type: "loops", upto: "hold", release: 0, lanes: [lane()] }, T0);
  note(deeds, model, { loops: { upto: "slow", release: 600 } }, T0);
  hub(deeds, model, { type: "loops", upto: "slow", release: 600, lanes: [] });
  assert.equal(wordsOf(deeds.list[0], T0), "such a lane is slowed; what was held is delivered");
});
