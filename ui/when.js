// When: a moment as people write it. Pure.
//
//   2026-03-12, 2026-03-12 14:00[:05], the same with T, Z or +02:00     ISO 8601; without a zone it is this browser's
//   14:00, today 14:00, yesterday 14:00, yesterday                      by this browser's clock
//   2h ago, 90 min ago, 3 days ago                                      before now

const UNITS = { s: 1, m: 60, h: 3_600, d: 86_400, w: 604_800 };
const AGO = /^(\d+(?:\.\d+)?)\s*(s|m|h|d|w)(?:ec(?:ond)?s?|in(?:ute)?s?|(?:ou)?rs?|ays?|eeks?)?\s+ago$/;
const DAY = /^(?:(today|yesterday)\s*)?(?:(\d{1,2}):(\d{2})(?::(\d{2}))?)?$/;
const ISO = /^(\d{4}-\d{2}-\d{2})(?:[t ](\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?)\s*(z|[+-]\d{2}:?\d{2})?)?$/;

export const WHEN_HELP = "A time such as 2026-03-12 14:00, yesterday 14:00, 9:30 or 2h ago is understood.";

/** What `text` means, ms; null when it is not understood. `isUtc`: times without a zone are UTC. */
export function momentOf(text, now, isUtc = false) {
  const plain = text.trim().toLowerCase();
  const ago = AGO.exec(plain);
  if (ago) return now - Number(ago[1]) * UNITS[ago[2]] * 1000;
  if (plain === "now") return now;
  const iso = ISO.exec(plain);
  const ms = iso ? Date.parse(`${iso[1]}T${iso[2] ?? "00:00"}${iso[3]?.toUpperCase() ?? (isUtc ? "Z" : "")}`) : plain ? onDay(DAY.exec(plain), now, isUtc) : NaN;
  return Number.isFinite(ms) ? ms : null;
}

/** A clock's time is the last one that was: 23:00 at noon is yesterday's. */
function onDay(found, now, isUtc) {
  if (!found || Number(found[2]) > 23 || Number(found[3]) > 59 || Number(found[4]) > 59) return NaN;
  const [, day, hours = 0, minutes = 0, seconds = 0] = found;
  const at = (back) => {
    const date = new Date(now);
    if (isUtc) return Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate() - back, hours, minutes, seconds);
    return new Date(date.getFullYear(), date.getMonth(), date.getDate() - back, hours, minutes, seconds).getTime();
  };
  return at(day === "yesterday" || (!day && at(0) > now) ? 1 : 0);
}
