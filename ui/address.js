// Address: what stands after the # of the page's address, as parts between &: seq=1234, t-ID, at=TIME, only=WHAT, q=WORDS. Pure.
// Each part belongs to whoever knows its prefix; all others stay as they are.

const partsOf = (hash) => hash.replace(/^#/, "").split("&").filter(Boolean);

/** What stands behind a prefix; null: no part has it. */
export function partOf(hash, prefix) {
  const part = partsOf(hash).find((one) => one.startsWith(prefix));
  return part === undefined ? null : part.slice(prefix.length);
}

/** The same address with another value behind a prefix; null takes the part away. */
export function withPart(hash, prefix, value) {
  const rest = partsOf(hash).filter((one) => !one.startsWith(prefix));
  const parts = value === null ? rest : [...rest, prefix + value];
  return parts.length ? `#${parts.join("&")}` : "";
}

const LOOKS = ["q=", "only="]; // say what is shown, and no place in it

/** Whether it names a message, a thread, a moment, or any other place. */
export const namesPlace = (hash) => partsOf(hash).some((part) => !LOOKS.some((prefix) => part.startsWith(prefix)));
