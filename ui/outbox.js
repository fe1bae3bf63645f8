// Outbox: what the operator has said and the hub has not confirmed yet. Each word has a `client_id`; after a cut line it
// is sent again under the same one, so that the hub has it once, whether it was the word that was lost or the answer.
// Another room gets none of them: there, what they answer is another message.

import { keepIn, keptIn } from "./kept.js";

const KEY = "caucus.outbox"; // it survives a reload of the tab
const AGAIN_MS = 9 * 60_000; // the hub knows a client_id for 10 minutes: later, the same word might be said twice

/** Keep it in `storage`. */
export function openOutbox(storage) {
  const kept = [keptIn(storage, KEY, [])].flat().filter((one) => typeof one?.frame?.client_id === "string");
  const waiting = new Map(kept.map((one) => [one.frame.client_id, one]));
  const keep = () => keepIn(storage, KEY, [...waiting.values()]);
  return {
    /** Give a frame that speaks its client_id; others stay as they are. */
    sign: (frame) => (Object.hasOwn(frame, "say") ? { ...frame, client_id: frame.client_id ?? freshId() } : frame),
    /** Remember a signed frame that was sent into a room; `isTyped`: the operator's own words. */
    note(frame, now, room, isTyped = true) {
      if (!frame.client_id) return;
      waiting.set(frame.client_id, { frame, at: now, room, isTyped });
      keep();
    },
    /** Take the hub's word on one: it is said, or refused. */
    hear(frame) {
      if (!["said", "error"].includes(frame?.type) || !waiting.delete(frame.client_id)) return;
      keep();
    },
    /** The line is back, to `room`: give what is to be sent again, what is too old for that, and what was for another room. */
    again(now, room) {
      const all = [...waiting.values()];
      const strange = all.filter((one) => one.room !== room);
      const old = all.filter((one) => one.room === room && now - one.at > AGAIN_MS);
      for (const { frame } of [...strange, ...old]) waiting.delete(frame.client_id);
      keep();
      return { frames: [...waiting.values()].map(({ frame }) => frame), old: old.map(({ frame }) => frame), strange };
    },
  };
}

/** 128 bits of chance; `randomUUID` is not there on a page that came over plain http from another machine. */
const freshId = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
