// What was said and is not confirmed goes again under the same client_id.

import assert from "node:assert/strict";
import { test } from "node:test";
import { openOutbox } from "../../ui/outbox.js";

const ROOM = "r1";
const T0 = 1_700_000_000_000;

function storage() {
  const kept = new Map();
  return { getItem: (key) => kept.get(key) ?? null, setItem: (key, text) => kept.set(key, text) };
}

test("every word gets a client_id of its own, and nothing else does", () => {
  const outbox = openOutbox(storage());
  const [one, two] = [outbox.sign({ say: "a" }), outbox.sign({ say: "a" })];
  assert.match(one.client_id, /^[0-9a-f]{32}$/);
  assert.notEqual(one.client_id, two.client_id);
  assert.deepEqual(outbox.sign({ action: "pause" }), { action: "pause" });
});

test("what the hub has not confirmed goes again, in order, also after a reload", () => {
  const box = storage();
  const outbox = openOutbox(box);
  const frames = ["a", "b", "c", "d"].map((say) => outbox.sign({ say }));
  for (const frame of frames) outbox.note(frame, T0, ROOM);
  outbox.hear({ type: "said", client_id: frames[0].client_id });
  outbox.hear({ type: "error", client_id: frames[2].client_id });
  outbox.hear({ type: "error", reason: "invalid" });
  assert.deepEqual(openOutbox(box).again(T0 + 1000, ROOM), { frames: [frames[1], frames[3]], old: [], strange: [] });
  outbox.note({ action: "pause" }, T0, ROOM);
  assert.equal(outbox.again(T0, ROOM).frames.length, 2, "only words are said again");
});

test("what is older than the hub's memory is not said twice by chance", () => {
  const outbox = openOutbox(storage());
  const frame = outbox.sign({ say: "a" });
  outbox.note(frame, T0, ROOM);
  assert.deepEqual(outbox.again(T0 + 9 * 60_000 + 1, ROOM), { frames: [], old: [frame], strange: [] });
  assert.deepEqual(outbox.again(T0, ROOM), { frames: [], old: [], strange: [] });
});

test("a broken store breaks nothing", () => {
  const broken = { getItem: () => "{", setItem: () => { throw new Error("full"); } };
  const outbox = openOutbox(broken);
  outbox.note(outbox.sign({ say: "a" }), T0, ROOM);
  assert.equal(outbox.again(T0, ROOM).frames.length, 1);
});

test("what was said into another room is given back and never sent", () => {
  const outbox = openOutbox(storage());
  const [typed, settled] = [outbox.sign({ say: "a", reply_to: 3 }), outbox.sign({ say: "b", settles: 3 })];
  outbox.note(typed, T0, ROOM);
  outbox.note(settled, T0, ROOM, false);
  const { frames, old, strange } = outbox.again(T0, "r2");
  assert.deepEqual([frames, old, strange.map(({ frame, isTyped }) => [frame.say, isTyped])], [[], [], [["a", true], ["b", false]]]);
  assert.deepEqual(outbox.again(T0, ROOM), { frames: [], old: [], strange: [] });
});
