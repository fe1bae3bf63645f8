// What the palette finds.

import assert from "node:assert/strict";
import { test } from "node:test";
import { entriesOf, matches } from "../../ui/palette.js";

const model = { peers: [{ name: "api" }, { name: "The scribe" }], channels: { "#plans": {} }, floors: {}, stage: { off: "", agents: [{ name: "ann", state: "ready" }, { name: "bob", state: "waiting" }] } };
const ways = { go: () => {}, act: () => {}, write: () => {}, find: () => {}, press: () => {}, set: () => {} };
const needs = [{ who: "api", verb: "asks", text: "Ship it?", help: { word: "Answer", go: ["form", "f1"] } }, { who: "", text: "web is held", help: { word: "Resume", frame: { resume_peer: "web" } } }];
const entries = (isOperator) => entriesOf({ model, needs, isOperator, keys: [["b", "Look back", () => {}]], settings: [["utc", "Times in UTC", "Instead of this zone."]] }, ways);
const found = (typed, isOperator = true) => matches(entries(isOperator), typed).map((entry) => entry.text);

test("all words must be there, and what begins with them comes first", () => {
  assert.deepEqual(found("api").slice(0, 2), ["api asks Ship it?", "api"]);
  assert.equal(found("pause api")[0], "/pause api");
  assert.equal(found("api pause")[0], "/pause api");
  assert.deepEqual(found("utc"), ["Times in UTC"]);
  assert.deepEqual(found("zzz"), []);
});

test("each peer, channel, command, need, setting and key is reached", () => {
  const texts = found("");
  for (const text of ["api", "The scribe", "#plans", "/stop", "/kick The scribe", "/rate", "api asks Ship it?", "Times in UTC", "Look back", 'with:"The scribe"']) assert.ok(texts.includes(text), text);
});

test("of the stage what can be done now is offered, to the operator", () => {
  assert.deepEqual(found("bob").toSorted(), ["End bob", "Restart bob", "Stage: bob"]);
  assert.equal(found("start ann")[0], "Start ann");
  assert.ok(!found("start bob").includes("Start bob"));
  assert.deepEqual(found("ann", false), ["Stage: ann"]);
});

test("an observer is offered nothing that rules", () => {
  const texts = found("", false);
  assert.ok(texts.includes("api") && texts.includes("api asks Ship it?"));
  assert.ok(!texts.some((text) => text.startsWith("/") || text.startsWith("@") || text === "web is held"));
});

test("what the console can do comes before a peer that is named like it", () => {
  const hostile = entriesOf({ model: { ...model, peers: [{ name: "pause the room" }, { name: "stop all" }] }, needs: [], isOperator: true, keys: [], settings: [] }, ways);
  assert.equal(matches(hostile, "pause")[0].text, "/pause");
  assert.equal(matches(hostile, "stop")[0].text, "/stop");
});
