// What was said and is not confirmed goes again under the same client_id.

import assert from "node:assert/strict";
import { test } from "node:test";
import { openOutbox } from "../../ui/outbox.js";

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
  for (const frame of frames) outbox.note(frame, T0);
  outbox.hear({ type: "said", client_id: frames[0].client_id });
  outbox.hear({ type: "error", client_id: frames[2].client_id });
  outbox.hear({ type: "error", reason: "invalid" });
  assert.deepEqual(openOutbox(box).again(T0 + 1000), { frames: [frames[1], frames[3]], old: [] });
  outbox.note({ action: "pause" }, T0);
  assert.equal(outbox.again(T0).frames.length, 2, "only words are said again");
});

test("what is older than the hub's memory is not said twice by chance", () => {
  const outbox = openOutbox(storage());
  const frame = outbox.sign({ say: "a" });
  outbox.note(frame, T0);
  assert.deepEqual(outbox.again(T0 + 9 * 60_000 + 1), { frames: [], old: [frame] });
  assert.deepEqual(outbox.again(T0), { frames: [], old: [] });
});

test("a broken store breaks nothing", () => {
  const broken = { getItem: () => "{", setItem: () => { throw new Error("full"); } };
  const outbox = openOutbox(broken);
  outbox.note(outbox.sign({ say: "a" }), T0);
  assert.equal(outbox.again(T0).frames.length, 1);
});
