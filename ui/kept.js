// Kept: what JSON can say, in a storage of this browser: a tab's, or its own. Where there is none, or it is full, all holds
// for this page alone.

/** What was kept under `key`; `otherwise` where nothing was, or it is not ours. */
export function keptIn(storage, key, otherwise = null) {
  try {
    return JSON.parse(storage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

/** Keep `value` under `key`; null forgets it. */
export function keepIn(storage, key, value) {
  try {
    if (value === null) storage.removeItem(key);
    else storage.setItem(key, JSON.stringify(value));
  } catch {
    // no storage, or it is full
  }
}
