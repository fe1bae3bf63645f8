// What is loaded of the record, and what of it is kept. Run: node --test tests/ui/
import test from "node:test";
import assert from "node:assert/strict";
import { apply, emptyModel, forgetBefore, logEnd } from "../../ui/model.js";
import { PAGE, PAST_MAX, Past, edgeOf } from "../../ui/older.js";
import { advance, emptyFilter, emptyRows, pastRows } from "../../ui/rows.js";

const said = (seq) => ({ id: `i${seq}`, seq, sender: seq % 2 ? "ann" : "bob", recipient: "all", kind: "message", origin: "agent", content: `message ${seq}`, ts: 1_700_000_000 + seq * 30 });

/** A record of messages 1 to `count`, as GET /history tells of it. */
function recordOf(count, first = 1) {
  const record = { asked: [], fails: false };
  record.ask = async ({ before, after, around, limit }) => {
    record.asked.push(before ?? after ?? around);
    if (record.fails) throw new Error("the hub is out of reach");
    let from = first, to = count;
    if (before !== undefined) [from, to] = [Math.max(first, before - limit), Math.min(count, before - 1)];
    if (after !== undefined) [from, to] = [Math.max(first, after + 1), Math.min(count, after + limit)];
    if (around !== undefined) [from, to] = [Math.max(first, around - limit / 2), Math.min(count, around + limit / 2 - 1)];
    const messages = [];
    for (let seq = from; seq <= to; seq += 1) messages.push(said(seq));
    const next = after !== undefined ? (to < count ? { after: to } : null) : from > first ? { before: from } : null;
    return { messages, next, reaches: { kept: "journal", seq: first, ts: 1 } };
  };
  return record;
}
const seqs = (past) => past.pages.flatMap(({ messages }) => messages.map(({ seq }) => seq));
const isWhole = (list) => list.every((seq, at) => at === 0 || seq === list[at - 1] + 1);

test("a hundred thousand messages are read back to the first, and no more than so many are kept at any time", async () => {
  const past = new Past(recordOf(100_000).ask, () => {});
  let most = 0;
  for (let turns = 0; !past.hasAllBefore(99_501) && turns < 1_000; turns += 1) {
    await past.older(99_501);
    most = Math.max(most, past.count);
    assert.equal(past.places.size, past.count);
    assert.equal(past.bySeq.size, past.count);
  }
  assert.equal(past.first, 1);
  assert.ok(most <= PAST_MAX && isWhole(seqs(past)));
  assert.equal(past.isJoined(99_501), false); // what lies between was dropped
  for (let turns = 0; !past.isJoined(99_501) && turns < 1_000; turns += 1) await past.newer(99_501);
  assert.equal(past.last, 99_500);
  assert.ok(past.count <= PAST_MAX && isWhole(seqs(past)));
  assert.equal(past.hasAllBefore(99_501), false);
});

test("a message is opened with what is around it, and the log is joined only where nothing lies between", async () => {
  const past = new Past(recordOf(5_000).ask, () => {});
  assert.equal(await past.open(2_000, 4_501), true);
  assert.equal(past.count, PAGE);
  assert.equal(past.isJoined(4_501), false);
  assert.equal(await past.open(4_450, 4_501), true);
  assert.deepEqual([past.last, past.isJoined(4_501)], [4_500, true]);
  assert.equal(past.isJoined(4_700), false); // the log was cut at its front
  assert.equal(await past.open(9_000, 4_501), false);
  assert.equal(past.last, 4_500); // as it was
});

test("what fails is told in words, and can be tried again; what nobody waits for comes to nobody", async () => {
  const record = recordOf(1_000);
  let drawn = 0;
  const past = new Past(record.ask, () => { drawn += 1; });
  record.fails = true;
  await past.older(501);
  assert.deepEqual(past.top, { state: "failed", why: "the hub is out of reach" });
  record.fails = false;
  await past.older(501);
  assert.deepEqual([past.top.state, past.first, past.last], ["idle", 301, 500]);
  const late = past.older(501);
  past.clear();
  await late;
  assert.equal(past.count, 0);
  assert.ok(drawn >= 4);
});

test("two questions at once are one", async () => {
  const record = recordOf(1_000);
  const past = new Past(record.ask, () => {});
  await Promise.all([past.older(501), past.older(501)]);
  assert.deepEqual(record.asked, [501]);
});

test("the rows of a page stay what they are when one comes before it", async () => {
  const model = emptyModel();
  for (let seq = 501; seq < 520; seq += 1) apply(model, { type: "message", message: said(seq) }, 0);
  assert.equal(edgeOf(model), 501);
  const past = new Past(recordOf(1_000).ask, () => {});
  const rows = emptyRows(emptyFilter(), true);
  advance(rows, model);
  await past.older(501);
  const first = pastRows(rows, past, model).filter((row) => row.type === "message");
  await past.older(501);
  const then = pastRows(rows, past, model).filter((row) => row.type === "message");
  assert.equal(then.length, 400);
  assert.ok(first.every((row, at) => row === then[200 + at]));
  assert.ok(then.every((row, at) => at === 0 || row.index > then[at - 1].index));
  assert.ok(then.at(-1).index < 0);
  assert.equal(logEnd(model), 19); // the live model knows nothing of it
});

test("where another room went on in this page there is no older message to fetch", () => {
  const model = emptyModel();
  apply(model, { type: "snapshot", room: "a", mode: "running", log: [said(7), said(8)] }, 0);
  apply(model, { type: "snapshot", room: "b", mode: "running", log: [{ ...said(3), id: "new" }] }, 0);
  assert.equal(edgeOf(model), 0);
});

test("what is being opened is opened though what was loaded is forgotten meanwhile, but not in another room", async () => {
  const past = new Past(recordOf(5_000).ask, () => {});
  await past.older(4_501);
  const opened = past.open(2_000, 4_501);
  past.clear();
  assert.equal(await opened, true);
  const other = past.open(1_000, 4_501);
  past.begin();
  assert.equal(await other, null);
  assert.equal(past.count, 0);
});

test("a log of nothing but notices begins after the newest message, and none where nothing was ever said", () => {
  const notice = { id: "n1", seq: 0, sender: "hub", recipient: "all", kind: "system", origin: "hub", content: "ann joined", ts: 1 };
  const model = apply(emptyModel(), { type: "snapshot", room: "a", mode: "running", log: [notice], last_seq: 30 }, 0);
  assert.equal(edgeOf(model), 31);
  apply(model, { type: "message", message: said(31) }, 0);
  assert.deepEqual([edgeOf(model), model.lastSeq], [31, 31]);
  assert.equal(edgeOf(apply(emptyModel(), { type: "snapshot", room: "a", mode: "running", log: [notice], last_seq: 0 }, 0)), Infinity);
  assert.equal(edgeOf(apply(emptyModel(), { type: "snapshot", room: "a", mode: "running", log: [] }, 0)), Infinity); // an older hub
});

test("where messages are missing a marker says so, and the log can begin after it", () => {
  const model = apply(emptyModel(), { type: "snapshot", room: "a", mode: "running", log: [said(1), said(2)], last_seq: 2 }, 0);
  apply(model, { type: "snapshot", room: "a", mode: "running", log: [said(90), said(91)], last_seq: 91 }, 0);
  assert.deepEqual(model.log.map((message) => message.isHole === true), [false, false, true, false, false]);
  forgetBefore(model, 3);
  assert.deepEqual([edgeOf(model), model.log.length, model.logStart, logEnd(model)], [90, 2, 3, 5]);
});
