// A moment as people write it. Run: node --test tests/ui/
import test from "node:test";
import assert from "node:assert/strict";
import { momentOf } from "../../ui/when.js";

const NOON = Date.UTC(2026, 2, 12, 12);
const utc = (...parts) => Date.UTC(...parts);

for (const [text, expected] of [
  ["2026-03-11", utc(2026, 2, 11)], ["2026-03-11 14:00", utc(2026, 2, 11, 14)], ["2026-03-11T14:00:05Z", utc(2026, 2, 11, 14, 0, 5)],
  ["2026-03-11 14:00+02:00", utc(2026, 2, 11, 12)], ["yesterday 14:00", utc(2026, 2, 11, 14)], ["Yesterday", utc(2026, 2, 11)],
  ["today 9:30", utc(2026, 2, 12, 9, 30)], ["9:30", utc(2026, 2, 12, 9, 30)], ["23:00", utc(2026, 2, 11, 23)], ["now", NOON],
  ["2h ago", NOON - 7_200_000], ["90 min ago", NOON - 5_400_000], ["1.5 hours ago", NOON - 5_400_000], ["3 days ago", NOON - 259_200_000], ["30 seconds ago", NOON - 30_000], ["2 weeks ago", NOON - 1_209_600_000],
]) test(`${text} is understood`, () => assert.equal(momentOf(text, NOON, true), expected));

for (const text of ["", "  ", "soon", "25:00", "9:75", "2026-13-01", "2026-03-11 9", "h ago", "-2h ago", "2y ago", "today at noon"]) {
  test(`“${text}” is not`, () => assert.equal(momentOf(text, NOON, true), null));
}
