// Drafts: what was half done in this tab, so that a reload loses nothing: forms that are being filled in, the search, the
// filters, the place in the conversation. The composer and the house rules keep their own. Nothing of it goes to the hub.

import { keptIn } from "./kept.js";

const KEY = "caucus.half-done";
const KEPT_MAX = 40; // things; the oldest gives way
const CHARS_MAX = 400_000; // of all, far below what a browser keeps of one page; a form's answers are 4,096 each

const drafts = new Map([keptIn(globalThis.sessionStorage, KEY, [])].flat().filter((one) => Array.isArray(one) && typeof one[0] === "string"));

/** What was kept under `key`; null when nothing was. */
export const draftOf = (key) => drafts.get(key) ?? null;

/** Keep `draft`, which JSON can say, under `key`; null forgets it. */
export function keepDraft(key, draft) {
  if (draft === null && !drafts.has(key)) return;
  drafts.delete(key);
  if (draft !== null) drafts.set(key, draft);
  while (drafts.size > KEPT_MAX) drafts.delete(drafts.keys().next().value);
  try {
    let text = JSON.stringify([...drafts]);
    while (text.length > CHARS_MAX && drafts.size) {
      drafts.delete(drafts.keys().next().value);
      text = JSON.stringify([...drafts]);
    }
    sessionStorage.setItem(KEY, text);
  } catch {
    // no storage, or it is full: it holds for this page
  }
}
