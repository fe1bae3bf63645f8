// The picture's geometry, and transcripts as files. Run: node --test tests/ui/
import test from "node:test";
import assert from "node:assert/strict";
import { apply, emptyModel } from "../../ui/model.js";
import { emptyPicture, extend, heightOf, indexesBetween, lanesOf, nearest, strokesOf, yAt, yOf } from "../../ui/picture.js";
import { SLANT, spreadOf } from "../../ui/spread.js";
import { markdownOf, transcriptOf } from "../../ui/transcript.js";

const NOON = Date.UTC(2026, 10, 23, 12) / 1000;
let lastId = 0;

function said(sender, content, more = {}) {
  lastId += 1;
  return { id: `p${lastId}`, sender, recipient: "all", content, kind: "message", ts: NOON, seq: lastId, origin: "agent", ...more };
}
function heard(...messages) {
  const model = emptyModel();
  for (const message of messages) apply(model, { type: "message", message }, 0);
  return model;
}
function drawn(model) {
  const picture = emptyPicture();
  extend(picture, model);
  return picture;
}

test("time runs down, a longer silence is a longer way, and an hour still fits", () => {
  const picture = drawn(heard(said("a", "1"), said("a", "2"), said("a", "3", { ts: NOON + 60 }), said("a", "4", { ts: NOON + 3660 })));
  const steps = picture.ys.slice(1).map((y, n) => y - picture.ys[n]);
  assert.ok(steps[0] > 0 && steps[1] > steps[0] && steps[2] > steps[1]);
  assert.ok(steps[2] < 100);
  assert.ok(heightOf(picture) > picture.ys.at(-1));
});

test("a clock that was set back does not run the picture up", () => {
  const { ys } = drawn(heard(said("a", "1"), said("a", "2", { ts: NOON - 50 }), said("a", "3")));
  assert.ok(ys[1] > ys[0] && ys[2] > ys[1]);
});

test("a moment lies between the messages around it, and what is at a height is found again", () => {
  const picture = drawn(heard(said("a", "1"), said("a", "2", { ts: NOON + 100 }), said("a", "3", { ts: NOON + 100 })));
  const middle = yOf(picture, (NOON + 50) * 1000);
  assert.ok(middle > yAt(picture, 0) && middle < yAt(picture, 1));
  assert.equal(yOf(picture, 0), 0);
  assert.ok(yOf(picture, (NOON + 500) * 1000) > yAt(picture, 2));
  for (const index of [0, 1, 2]) assert.equal(nearest(picture, yAt(picture, index) + 2, 4), index);
  assert.equal(nearest(picture, yAt(picture, 2) + 50, 8), -1);
  assert.deepEqual(indexesBetween(picture, yAt(picture, 1), yAt(picture, 2)), [1, 3]);
});

test("lanes: the operator, peers, everyone, the channels, each by name; who left keeps its lane while its words are there", () => {
  const model = heard(said("web", "hi"), said("api", "x", { recipient: "#plans" }));
  apply(model, { type: "peers", peers: [{ name: "late", state: "live" }] }, 0);
  apply(model, { type: "channels", channels: { "#quiet": { topic: null, members: ["late"] } } }, 0);
  assert.deepEqual(lanesOf(drawn(model), model).map((lane) => lane.key), ["operator", "=api", "=late", "=web", "all", "#plans", "#quiet"]);
});

test("a message goes from its sender's lane to its scope's; a peer called all or operator has a lane of its own", () => {
  assert.deepEqual(strokesOf(said("api", "x")), ["=api", "all"]);
  assert.deepEqual(strokesOf(said("api", "x", { recipient: "web" })), ["=api", "=web"]);
  assert.deepEqual(strokesOf(said("api", "x", { recipient: "#x" })), ["=api", "#x"]);
  assert.deepEqual(strokesOf(said("operator", "forged")), ["=operator", "all"]);
  assert.deepEqual(strokesOf(said("human", "x", { origin: "operator" })), ["operator", "all"]);
  assert.deepEqual(strokesOf(said("hub", "stick", { origin: "hub", kind: "system" })), [null, "all"]);
  assert.deepEqual(strokesOf(said("hub", "api joined", { origin: "hub", kind: "system", seq: 0 })), [null, null]);
});

test("what the log forgets leaves the picture, and the rest moves up by as much", () => {
  const model = heard(...Array.from({ length: 10 }, (_, n) => said(n < 5 ? "old" : "new", `${n}`)));
  const picture = drawn(model);
  const before = yAt(picture, 7);
  model.log.splice(0, 5);
  model.logStart = 5;
  const moved = extend(picture, model);
  assert.ok(moved > 0);
  assert.equal(yAt(picture, 7), before - moved);
  assert.deepEqual(lanesOf(picture, model).filter((lane) => lane.kind === "peer").map((lane) => lane.name), ["new"]);
});

test("a transcript has the hub's words for each message, and no text can forge an entry", () => {
  const one = said("api", "hello\n**web** → all · now\n\nforged", { recipient: "#x" });
  assert.equal(markdownOf(one, true), "**api** → #x · 2026-11-23 12:00:00 UTC\n\nhello\n\\**web** → all · now\n\nforged");
  assert.equal(transcriptOf([one], "text", { utc: true }), "[2026-11-23 12:00:00 UTC] api -> #x: hello **web** → all · now forged\n");
  assert.deepEqual(JSON.parse(transcriptOf([one], "json", { version: "1" })), { version: "1", count: 1, messages: [one] });
  assert.match(transcriptOf([one, { kind: "marker", content: "gap" }], "markdown"), /^# Caucus transcript\n\n1 messages\n\n\*\*api\*\*/);
});

test("a transcript says where messages are missing", () => {
  const gap = { kind: "marker", content: "Messages after 1 and before 9 are missing here: they were not loaded." };
  const [one, two] = [1, 9].map((seq) => ({ id: `g${seq}`, seq, sender: "api", recipient: "all", kind: "message", origin: "agent", content: `word ${seq}`, ts: NOON }));
  assert.match(transcriptOf([one, gap, two], "text", { utc: true }), /word 1\n--- Messages after 1 and before 9 are missing here: they were not loaded\.\n.*word 9\n/);
  assert.match(transcriptOf([one, gap, two], "markdown", { utc: true }), /2 messages[^]*word 1\n\n---\n\nMessages after 1 [^]*---\n\n[^]*word 9/);
  assert.deepEqual(JSON.parse(transcriptOf([one, gap, two], "json", { version: "1" })), { version: "1", count: 2, missing: [gap.content], messages: [one, two] });
});

// ---- how lanes are spread ----------------------------------------------------------------------------------------

const lengths = (count, px) => Array(count).fill(px);
const widthOf = ({ axis, gap, tail }, count) => axis + gap * count + tail;

test("lanes take the first way to stand in which all are in sight", () => {
  for (const [width, count, kind] of [[448, 4, "flat"], [448, 12, "slanted"], [269, 17, "upright"], [231, 16, "upright"], [88, 16, "rail"], [88, 3, "rail"]]) {
    const spread = spreadOf(width, lengths(count, 60));
    assert.equal(spread.kind, kind, `${count} lanes in ${width} px`);
    assert.ok(widthOf(spread, count) <= width + 0.01);
  }
});

test("the last name has its room beyond the last lane, and a name of any length is cut at one", () => {
  const slanted = spreadOf(448, lengths(12, 90));
  assert.ok(slanted.tail >= 90 * Math.cos(SLANT));
  assert.ok(slanted.head >= 90 * Math.sin(SLANT));
  assert.equal(spreadOf(448, lengths(30, 5_000)).room, spreadOf(448, lengths(30, 500)).room);
});

test("lanes that can no more be told apart scroll sideways, and none is nothing", () => {
  assert.ok(widthOf(spreadOf(300, lengths(400, 60)), 400) > 4_000);
  assert.ok(widthOf(spreadOf(80, lengths(400, 60)), 400) > 1_000);
  for (const value of Object.values(spreadOf(0, []))) assert.ok(typeof value === "string" || Number.isFinite(value));
});
