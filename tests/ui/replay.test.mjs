import assert from "node:assert/strict";
import { test } from "node:test";
import { goLive, lookAgain, lookAt, modelThen, openFile, openPast, play, seek, shareRead, tick } from "../../ui/past.js";
import { addPart, emptyReplay, goTo, lengthOf, markAt, markFrom, momentOfSeq, msOf, placeOf, xOf } from "../../ui/replay.js";

const T = 1_790_000_000_000;
const OPENING = { type: "snapshot", mode: "running", peers: [{ name: "api", state: "live", joined: T / 1000 - 60, status: "busy", status_at: T / 1000 - 30 }], log: [], owed: [] };
const said = (n, ms) => [ms, n, { type: "message", message: { id: `m${n}`, sender: "api", recipient: "all", content: `word ${n}`, kind: "message", ts: ms / 1000, seq: n, origin: "agent" } }];

/** Ten words a second apart, a night, ten more. */
function entries() {
  const list = [[T, 0, OPENING]];
  for (let n = 1; n <= 20; n += 1) list.push(said(n, T + n * 1000 + (n > 10 ? 8 * 3_600_000 : 0)));
  list[5].push({ kind: "pause", text: "control: paused" });
  list[15].push({ kind: "kick", text: "web was kicked by the operator" });
  return list;
}

const part = (list = entries()) => ({ version: "1", from: T / 1000, to: list.at(-1)[0] / 1000, entries: list });
const until = async (check) => { while (!check()) await new Promise((then) => setTimeout(then, 1)); };

test("a night takes little room on the slider, and places and moments lead to each other", () => {
  const replay = addPart(emptyReplay(), part());
  assert.ok(lengthOf(replay) < 400_000);
  for (const ms of [T, T + 3_500, T + 10_000, T + 4 * 3_600_000, T + 8 * 3_600_000 + 15_000, replay.to]) {
    assert.ok(Math.abs(msOf(replay, xOf(replay, ms)) - ms) < 2, String(ms - T));
  }
  assert.equal(msOf(replay, -5), T);
  assert.equal(msOf(replay, 1e12), replay.to);
  assert.equal(placeOf(replay, T - 1), 0);
  assert.equal(placeOf(replay, replay.to), 21);
});

test("marks are found from any moment", () => {
  const replay = addPart(emptyReplay(), part());
  assert.equal(markFrom(replay, T, 1).kind, "pause");
  assert.equal(markFrom(replay, T + 5_000, 1).kind, "kick");
  assert.equal(markFrom(replay, T + 5_000, -1), undefined);
  assert.equal(markFrom(replay, replay.to, 1), undefined);
  assert.equal(markFrom(replay, replay.to, -1).kind, "kick");
  assert.equal(markAt(replay, T + 5_000).kind, "pause");
  assert.equal(markAt(replay, T), undefined);
});

test("rows of peers are whole, whatever the record has of them, and their ages are those of the moment", () => {
  const list = [[T, 0, OPENING], [T + 5_000, 1, { type: "peers", changed: [{ name: "api", waiting: 3 }], gone: [] }],
    [T + 9_000, 2, { type: "peers", changed: [{ name: "api", paused: true }], gone: [] }]];
  const { peers } = goTo(addPart(emptyReplay(), part(list)), T + 9_000);
  assert.deepEqual([peers[0].waiting, peers[0].paused, peers[0].status, peers[0].uptime, peers[0].status_age, peers[0].listening], [3, true, "busy", 69, 39, null]);
});

test("what is owed is told by what changes", () => {
  const owe = (seq) => ({ seq, asker: "api", to: "web", text: "?", ts: 1 });
  const list = [[T, 0, OPENING], [T + 1, 1, { type: "owed", changed: [owe(1), owe(2)], gone: [] }], [T + 2, 2, { type: "owed", changed: [owe(3)], gone: [1] }]];
  assert.deepEqual(goTo(addPart(emptyReplay(), part(list)), T + 2).owed.map(({ seq }) => seq), [2, 3]);
});

test("time goes on as fast as is wished, and a night is skipped", () => {
  const past = openPast({ fetchPart: null, changed: () => {} });
  openFile(past, part(), T);
  assert.equal(past.state, "shown");
  play(past, true, 0);
  tick(past, 2_500);
  assert.equal(past.ms, T + 2_500);
  assert.equal(modelThen(past).log.length, 2);
  past.speed = 10;
  tick(past, 3_250);
  assert.equal(past.ms, T + 10_000);
  assert.equal(past.skipped, null);
  tick(past, 3_260);
  assert.equal(past.ms, T + 8 * 3_600_000 + 11_000 - 1_000);
  assert.ok(past.skipped.ms > 7 * 3_600_000);
  tick(past, 60_000);
  assert.equal(past.ms, past.replay.to);
  assert.equal(past.isPlaying, false);
  play(past, true, 0);
  assert.equal(past.ms, T); // from the beginning
});

test("a span comes in parts, the wanted moment is shown when it is there, and what comes too late is not taken", async () => {
  const list = entries();
  const asked = [];
  const waiting = [];
  const past = openPast({ changed: () => {}, fetchPart: (query) => { asked.push(query); return new Promise((then, no) => waiting.push({ then, no })); } });
  lookAt(past, T + 3_000);
  await until(() => waiting.length === 1);
  waiting[0].then({ ...part(list), entries: list.slice(0, 8), next: 8 });
  await until(() => past.state === "shown");
  assert.equal(past.ms, T + 3_000);
  assert.ok(shareRead(past) < 1);
  await until(() => waiting.length === 2);
  assert.equal(asked[1].after, 8);
  seek(past, past.replay.to);
  assert.equal(past.ms, T + 3_000); // it is not there yet
  waiting[1].then({ ...part(list), entries: list.slice(8), next: null });
  await until(() => past.ms === past.replay.to);
  assert.equal(shareRead(past), 1);
  lookAt(past);
  await until(() => waiting.length === 3);
  goLive(past);
  waiting[2].then(part(list));
  await new Promise((then) => setTimeout(then, 5));
  assert.equal(past.state, "live");
  assert.equal(modelThen(past), null);
});

test("why there is no past is told", async () => {
  const past = openPast({ changed: () => {}, fetchPart: () => Promise.reject(new Error("this hub has no journal")) });
  await lookAt(past);
  assert.deepEqual([past.state, past.why], ["none", "this hub has no journal"]);
});

test("what is left is aborted, and what was cut off is asked for again", async () => {
  const signals = [];
  const waiting = [];
  const past = openPast({ changed: () => {}, fetchPart: (query, signal) => { signals.push(signal); return new Promise((then, no) => waiting.push({ query, then, no })); } });
  lookAt(past, T + 3_000);
  await until(() => waiting.length === 1);
  goLive(past);
  assert.equal(signals[0].aborted, true);
  lookAt(past, T + 3_000);
  await until(() => waiting.length === 2);
  waiting[1].no(new Error("the hub is out of reach"));
  await until(() => past.state === "none");
  lookAgain(past);
  await until(() => waiting.length === 3);
  assert.deepEqual(waiting[2].query, waiting[1].query);
  waiting[2].then({ ...part(), entries: entries().slice(0, 8), next: 8 });
  await until(() => past.state === "shown" && waiting.length === 4);
  waiting[3].no(new Error("the hub is out of reach"));
  await until(() => past.isCut);
  assert.equal(past.state, "shown");
  lookAgain(past);
  await until(() => waiting.length === 5);
  assert.equal(waiting[4].query.after, 8);
  assert.equal(signals[4].aborted, false);
  waiting[4].then({ ...part(), entries: entries().slice(8), next: null });
  await until(() => shareRead(past) === 1);
  assert.equal(lookAgain(past), undefined);
});

test("a span ends where the record does, and one that lies beyond it is looked at from its nearer end", async () => {
  const asked = [];
  const whole = part();
  const fetchPart = async (query) => {
    asked.push(query);
    const [from, to] = [query.from ?? whole.from, query.to ?? whole.to];
    return { ...whole, from, to, first: whole.from, last: whole.to, entries: from > whole.to || to < whole.from ? [] : entries(), next: null };
  };
  const past = openPast({ changed: () => {}, fetchPart });
  for (const ms of [T + 9 * 3_600_000, T + 999 * 3_600_000, 8e15]) {
    await lookAt(past, ms);
    await until(() => past.state === "shown");
    assert.deepEqual([past.ms, past.replay.to], [whole.to * 1000, whole.to * 1000], String(ms));
    seek(past, Infinity);
    assert.equal(past.ms, whole.to * 1000);
    assert.ok(asked.every(({ from = 0, to = 0 }) => from >= 0 && to < 1e11));
  }
  await lookAt(past, 0);
  await until(() => past.state === "shown");
  assert.deepEqual([past.ms, past.replay.from], [T, T]);
});

test("where very much was said the span begins nearer to the wanted moment", async () => {
  const asked = [];
  const day = 86_400_000;
  const fetchPart = async ({ from = T / 1000, to = (T + day) / 1000, after = 0 }) => { // a hundred parts a day
    if (after === 0) asked.push(from * 1000 - T);
    const begin = from * 1000 + after * (day / 100);
    const list = [[begin + (after === 0 ? 0 : 1), after, after === 0 ? OPENING : { type: "x" }], [begin + day / 100, after + 1, { type: "x" }]];
    return { version: "1", from, to, first: T / 1000, last: (T + day) / 1000, entries: list, next: begin + day / 100 >= to * 1000 ? null : after + 1 };
  };
  const past = openPast({ changed: () => {}, fetchPart });
  await lookAt(past);
  await until(() => past.state === "shown");
  assert.deepEqual(asked.map((ms) => Math.round((ms / day) * 100)), [0, 88]);
  assert.equal(past.ms, T + day);
});

test("when a message was said is known of those in the span", () => {
  const replay = addPart(emptyReplay(), part());
  assert.equal(momentOfSeq(replay, 3), T + 3_000);
  assert.equal(momentOfSeq(replay, 99), null);
});
