// How an agent of the stage is told of, and what can be asked of it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { factsText, rulesOf, stageNeeds, stateText } from "../../ui/cast.js";
import { emptyDeeds, hear, note } from "../../ui/deeds.js";
import { apply, emptyModel } from "../../ui/model.js";

const row = (more) => ({ name: "ann", kind: "exec", type: "", state: "ready", since: 100, at: 100, restarts: 0, restarts_max: 2, exit_code: null, why: "", limits: ["20 turns"],
  messages: 0, turns: 0, dollars: null, output: 0, ...more });
const staged = (...agents) => apply(emptyModel(), { type: "stage", off: "", agents });

test("a state has its age, and a state that is unknown its name", () => {
  assert.equal(stateText(row({}), 140_000), "not started");
  assert.equal(stateText(row({ state: "thinking" }), 140_000), "thinking for 40 s");
  assert.equal(stateText(row({ state: "asleep" }), 140_000), "asleep until it is spoken to, for 40 s");
  assert.equal(stateText(row({ state: "ended", exit_code: 3 }), 220_000), "ended, exit code 3, 2 min ago");
  assert.equal(stateText(row({ state: "failed" }), 101_000), "failed, 1 s ago");
  assert.equal(stateText(row({ state: "of a newer hub" }), 0), "of a newer hub");
});

test("an age is by the hub's clock, whatever that of the browser says", () => {
  const model = apply(emptyModel(), { type: "stage", off: "", agents: [row({ state: "waiting", since: 100 })], ts: 140 }, 9_000_000);
  assert.equal(stateText(model.stage.agents[0], 9_000_000), "waiting for 40 s");
});

test("what it costs and what bounds it is told; what is nothing is not", () => {
  assert.equal(factsText(row({})), "exec · at most 20 turns");
  assert.equal(factsText(row({ kind: "claude", type: "worker", messages: 1, turns: 2, restarts: 1, start: "when spoken to" })),
    "claude, worker, starts when spoken to · 1 message · 2 turns · cost unknown · restarted 1 of 2 times · at most 20 turns");
  assert.match(factsText(row({ kind: "claude", turns: 1, dollars: 0.128 })), /· \$0\.13 ·/);
  assert.match(factsText(row({ sessions: 2, aside: { count: 1, seq: 9, sender: "bob" } })), /2 sessions · 1 message set aside, the latest 9 of bob ·/);
});

test("what cannot be asked says why", () => {
  const can = (state) => rulesOf(staged(row({ state })), row({ state })).filter(({ why }) => !why).map(({ verb }) => verb);
  assert.deepEqual(can("asleep"), ["end"]);
  for (const state of ["ready", "ended", "failed"]) assert.deepEqual(can(state), ["start"], state);
  for (const state of ["starting", "seated", "thinking", "waiting", "restarting"]) assert.deepEqual(can(state), ["end", "restart"], state);
  assert.deepEqual(can("ending"), []);
  const stopped = { ...staged(row({})), mode: "stopped" };
  assert.equal(rulesOf(stopped, row({}))[0].why, "the room is stopped: reset it first");
  const seated = { ...staged(row({ state: "waiting" })), peers: [{ name: "ann", state: "live" }] };
  assert.deepEqual(rulesOf(seated, row({ state: "waiting" })).at(-1), { verb: "interrupt", word: "Interrupt", icon: "bolt", frame: { command: "interrupt", to: "ann" }, why: "" });
});

test("who has failed is a need until it is started again", () => {
  const [need] = stageNeeds(staged(row({ state: "failed", why: "it is not installed" }), row({ name: "bob" })));
  assert.deepEqual([need.who, need.text, need.help.frame], ["ann", "it is not installed", { stage: "start", agent: "ann" }]);
  assert.deepEqual(stageNeeds(staged(row({ state: "starting" }))), []);
});

test("an order is in effect when the agent's row shows it", () => {
  const model = staged(row({}));
  const deeds = note(emptyDeeds(), model, { stage: "start", agent: "ann" }, 0);
  const tell = (more) => {
    const frame = { type: "stage", off: "", agents: [row(more)] };
    return hear(deeds, apply(model, frame), frame, 1).list[0];
  };
  assert.equal(tell({ messages: 1 }).state, "asked");
  const { state, word, text } = tell({ state: "failed", since: 101, why: "it is not installed" });
  assert.deepEqual([state, word, text], ["effective", "Start ann", "it is not installed"]);
});
