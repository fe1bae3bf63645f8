// When somebody was away, and what an interval of the log holds. Run: node --test tests/ui/
import test from "node:test";
import assert from "node:assert/strict";
import { ABSENT_MS, absenceOf, beginOf, emptyHere, noteOf, watch } from "../../ui/absence.js";
import { apply, emptyModel, logEnd } from "../../ui/model.js";

const NOW = 1_795_384_800_000;
const LATER = NOW + 2 * ABSENT_MS;
let lastSeq = 0;

function said(sender, content, more = {}) {
  lastSeq += 1;
  return { id: `a${lastSeq}`, sender, recipient: "all", content, kind: "message", ts: NOW / 1000 + 60, seq: lastSeq, origin: "agent", ...more };
}
const EVENTS = [[/ joined$/, "PeerJoined"], [/ joined #/, "ChannelJoined"], [/ left$| kicked/, "PeerLeft"], [/mailbox is full/, "MailboxOverflowed"], [/topic/, "TopicSet"], [/restarted/, "RoomReopened"]];
const eventOf = (content) => EVENTS.find(([words]) => words.test(content))?.[1] ?? "ModeChanged";
const notice = (content, more = {}) => ({ ...said("hub", content, { kind: "system", origin: "hub", meta: { event: eventOf(content) }, ...more }), seq: 0 });

function opened(more = {}) {
  lastSeq = 0;
  return apply(emptyModel(), { type: "snapshot", room: "r1", mode: "running", peers: [], channels: {}, floors: {}, forms: [], log: [], health: null, ...more }, NOW);
}
const hear = (model, ...messages) => messages.reduce((one, message) => apply(one, { type: "message", message }, LATER), model);
const looks = (touchedAt, isHidden = false) => ({ isHidden, touchedAt });
const items = (found, title) => found.parts.find((part) => part.title === title)?.items.map(({ text }) => text) ?? null;

/** Somebody who was here until NOW and is back LATER. */
function away(model, ...messages) {
  const here = emptyHere();
  watch(here, model, looks(NOW), NOW);
  hear(model, ...messages);
  assert.equal(watch(here, model, looks(LATER), LATER), true);
  return absenceOf(model, here.absent, LATER);
}

test("five minutes without input are an absence, less are not", () => {
  const [model, here] = [opened(), emptyHere()];
  assert.equal(watch(here, model, looks(NOW), NOW), false);
  assert.equal(watch(here, model, looks(NOW), NOW + ABSENT_MS), false); // nobody came back yet
  assert.equal(watch(here, model, looks(NOW + ABSENT_MS - 1), NOW + ABSENT_MS), false);
  assert.equal(watch(here, model, looks(NOW + 2 * ABSENT_MS), NOW + 2 * ABSENT_MS), true);
  assert.equal(here.absent.from, NOW + ABSENT_MS - 1);
});

test("a hidden tab is an absence from the moment in which it was hidden, and ends when it is shown", () => {
  const [model, here] = [opened(), emptyHere()];
  watch(here, model, looks(NOW), NOW);
  hear(model, said("ann", "seen, for the page was in front"));
  watch(here, model, looks(NOW, true), NOW + 60_000);
  hear(model, said("ann", "not seen"));
  assert.equal(watch(here, model, looks(NOW, true), LATER), false);
  assert.equal(watch(here, model, looks(NOW), LATER), true);
  assert.equal(here.absent.from, NOW + 60_000);
  assert.equal(absenceOf(model, here.absent, LATER).said, 1);
});

test("while a snapshot comes in pages nobody is told yet", () => {
  const [model, here] = [opened({ more: true }), emptyHere({ at: NOW - ABSENT_MS, seq: 0, room: "r1", absent: null })];
  assert.equal(watch(here, model, looks(NOW), NOW), false);
  apply(model, { type: "page", log: [], last: true }, NOW);
  assert.equal(watch(here, model, looks(NOW), NOW), true);
});

test("it counts messages and characters by lane, and the hub's lines are none", () => {
  const found = away(opened(), said("ann", "one"), said("bob", "four", { recipient: "ann" }), said("ann", "fives", { recipient: "bob" }), notice("ann joined"));
  assert.deepEqual([found.said, found.chars], [3, 12]);
  assert.deepEqual(items(found, "By lane"), ["ann and bob: 2 messages, 9 characters", "everyone: 1 message, 3 characters"]);
  assert.deepEqual(found.parts[0].items[0].go.slice(0, 2), ["only", "ann ↔ bob"]);
  assert.deepEqual(items(found, "Came"), ["ann joined"]);
});

test("decisions, stops, losses, departures and open questions, each with where it leads", () => {
  const model = opened();
  const here = emptyHere();
  watch(here, model, looks(NOW), NOW);
  apply(model, { type: "form", form: { id: "f1", title: "Deploy?", asker: "ann", to: "all", fields: [], status: "pending", answers: null, ts: NOW / 1000 + 10, seq: 0 } }, NOW);
  apply(model, { type: "form", form: { id: "f2", title: "Which?", asker: "bob", to: "all", fields: [], status: "pending", answers: null, ts: NOW / 1000 + 20, seq: 0 } }, NOW);
  hear(model, said("human", "yes", { kind: "answer", origin: "operator", meta: { form_id: "f1", status: "answered", title: "Deploy?", asker: "ann", to: "all", answers: { k: "now" } } }),
    notice("control: stopped"), notice("control: running", { ts: NOW / 1000 + 120 }), notice("bob's mailbox is full: 3 lost, the latest is message 9 from ann"),
    notice("bob's mailbox is full: 4 lost, the latest is message 12 from ann"), notice("carl left"), notice("dora was kicked by the operator"), notice("eve left #plans"));
  apply(model, { type: "owed", owed: [{ seq: 1, asker: "bob", to: "ann", text: "which port?", ts: NOW / 1000 + 30 }] }, NOW);
  watch(here, model, looks(LATER), LATER);
  const found = absenceOf(model, here.absent, LATER);
  assert.deepEqual(items(found, "Decisions"), ["Deploy?: answered, k: now"]);
  assert.deepEqual(items(found, "Stops and pauses"), ["the room was stopped, for 1 min"]);
  assert.deepEqual(items(found, "Losses"), ["bob lost 4 messages"]);
  assert.deepEqual(items(found, "Went"), ["carl left", "dora was kicked by the operator"]);
  assert.deepEqual(items(found, "Still open"), ["bob asks: Which?", "bob asks ann: which port?"]);
  for (const { items: all } of found.parts) assert.ok(all.every(({ go }) => Array.isArray(go) && go.length > 1));
});

test("the three longest exchanges stand by their first lines; who speaks alone exchanges nothing", () => {
  const talk = (pair, count, more = {}) => Array.from({ length: count }, (_, n) => said(pair[n % 2], `${pair.join("")} ${n}`, { recipient: pair[(n + 1) % 2], ...more }));
  const alone = Array.from({ length: 30 }, (_, n) => said("zoe", `alone ${n}`, { recipient: "#log" }));
  const found = away(opened(), ...talk(["a", "b"], 4), ...talk(["c", "d"], 9), ...talk(["e", "f"], 2), ...talk(["g", "h"], 6), ...alone,
    ...talk(["a", "b"], 5, { ts: NOW / 1000 + 60 + 700 }));
  assert.deepEqual(items(found, "Longest exchanges"), ["9 messages of c, d: “cd 0”", "6 messages of g, h: “gh 0”", "4 messages of a, b: “ab 0”"]); // what was said after somebody was back is none of it
});

test("what was said before and after it is none of it, and nothing is null", () => {
  const model = opened({ log: [said("ann", "before", { ts: NOW / 1000 - 5 })] });
  assert.equal(away(model), null);
  const [other, here] = [opened(), emptyHere()];
  watch(here, other, looks(NOW), NOW);
  hear(other, said("ann", "in it"));
  watch(here, other, looks(LATER), LATER);
  apply(other, { type: "message", message: said("ann", "after", { ts: LATER / 1000 + 20 }) }, LATER + 20_000);
  assert.equal(absenceOf(other, here.absent, LATER + 30_000).said, 1);
});

test("a tab that is loaded again knows where it was, and says what this page does not have", () => {
  const model = opened();
  const here = emptyHere();
  hear(model, said("ann", "seen"));
  watch(here, model, looks(NOW), NOW);
  const kept = JSON.parse(JSON.stringify(noteOf(here)));
  lastSeq = 1;
  const gone = [said("ann", "old")];
  const log = [said("ann", "new"), said("bob", "newer")];
  assert.equal(gone.length, 1);
  const fresh = apply(emptyModel(), { type: "snapshot", room: "r1", mode: "running", peers: [], channels: {}, floors: {}, forms: [], log, health: null, last_seq: 4 }, LATER);
  const again = emptyHere(kept);
  assert.equal(watch(again, fresh, looks(LATER), LATER), true);
  const found = absenceOf(fresh, again.absent, LATER);
  assert.deepEqual([found.said, found.missing], [2, { count: 1, seq: 2 }]);
  assert.equal(beginOf(fresh, again.absent), 0);
  const strange = emptyHere({ ...kept, room: "r0" });
  watch(strange, fresh, looks(LATER), LATER);
  assert.equal(absenceOf(fresh, strange.absent, LATER).missing, null);
  assert.equal(logEnd(fresh), 2);
});

test("what a tab noted and is not ours is no note", () => {
  for (const kept of [null, 7, {}, { at: "x", seq: 1 }, { at: 1 }]) assert.equal(emptyHere(kept).at, 0);
});

test("no name and no topic passes for what the hub tells of", () => {
  const topic = { meta: { event: "TopicSet" } };
  const found = away(opened(), notice("api's mailbox is full: 9999 lost, the latest is message 1 from x joined", { meta: { event: "PeerJoined" } }),
    notice("ann set the topic of #c: ops was kicked by the operator", topic), notice("ann set the topic of #c: bob is back", topic),
    notice("the hub restarted: all is lost joined", { meta: { event: "PeerJoined" } }));
  assert.deepEqual(found.parts.map(({ title, items }) => [title, items.length]), [["Came", 2]]);
});

test("a screen that locks itself in front of nobody ends no absence, and another absence goes on with one that is not put away", () => {
  const here = emptyHere();
  const model = opened();
  watch(here, model, looks(NOW), NOW);
  watch(here, model, looks(NOW, true), NOW + 3 * ABSENT_MS); // no input for long, then the screen is locked
  assert.ok(watch(here, model, looks(NOW + 4 * ABSENT_MS), NOW + 4 * ABSENT_MS));
  assert.equal(here.absent.from, NOW);
  assert.ok(watch(here, model, looks(NOW + 6 * ABSENT_MS), NOW + 6 * ABSENT_MS));
  assert.deepEqual([here.absent.from, here.absent.to], [NOW, NOW + 6 * ABSENT_MS]);
});
