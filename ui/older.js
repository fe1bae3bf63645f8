// Past: what was said before this page's own log, in pages of the record (GET /history). The live model knows nothing of
// it. What is kept is one stretch without gaps, bounded; its far end is dropped, and fetched again when one comes back.
//
//   ask(query)     gives {messages, trees, next, reaches}, or throws an Error in words
//   onChange()     is called whenever there is something else to show

export const PAGE = 200; // messages that are fetched at once: as many as the hub gives
export const PAST_MAX = 4_000; // messages that are kept: twenty pages, some hundred windows
const PAST_CHARS_MAX = 16_000_000; // of their texts
const PAGES_MIN = 3; // kept in any case: one before the window, one in it, one after it
const CHARS = 2_000_000; // of a page: more than 200 messages can have, so that none is cut
const BASE = 2 ** 52; // a place in the past is its seq less this: before all of the log, whose places begin at 0

/** Each message of a page with the syntax tree of its Markdown, if it has one. */
function withTrees(reply) {
  for (const message of reply.messages) if (reply.trees?.[message.id]) message.tree = reply.trees[message.id];
  return reply;
}

const IDLE = { state: "idle", why: "" };

/** The first seq of this room in the page's log, or the one that its first will have; 0 when it goes on from another room, Infinity when nothing was ever said. */
export function edgeOf(model) {
  for (const message of model.log) if (message.seq > 0) return model._ids.get(message.seq) === message.id ? message.seq : 0;
  return model.lastSeq > 0 ? model.lastSeq + 1 : Infinity;
}

export class Past {
  constructor(ask, onChange) {
    Object.assign(this, { ask, onChange, reaches: null, version: 0, opening: 0 });
    this.clear();
  }

  /** Forget all pages; what is on its way comes to nobody. */
  clear() {
    Object.assign(this, {
      pages: [], // {messages}, the oldest first
      count: 0, chars: 0,
      top: IDLE, end: IDLE, // of what loads before and after them: {state: idle | loading | failed, why}
      before: null, after: null, // where to go on, when that is not beside the first or the last message
      isFirst: false, // there is nothing older
      joinedTo: null, // the log's first seq, when nothing lay between it and the last page
      places: new Map(), // id -> place
      bySeq: new Map(),
      run: (this.run ?? 0) + 1,
    });
    this.version += 1;
  }

  /** The room is another one: what is being opened is not of it. */
  begin() {
    this.opening += 1;
    this.reaches = null;
    this.clear();
  }

  get first() {
    return this.pages[0]?.messages[0].seq ?? null;
  }

  get last() {
    return this.pages.at(-1)?.messages.at(-1).seq ?? null;
  }

  placeOf = (message) => message.seq - BASE;
  entryAt = (place) => this.bySeq.get(place + BASE);
  isJoined = (edge) => this.joinedTo === edge;
  hasAllBefore = (edge) => this.isFirst && (this.pages.length > 0 || this.joinedTo === edge);

  /** Fetch the page before the first; `edge` is where the page's own log begins. */
  async older(edge) {
    if (this.top.state === "loading") return;
    const isNew = this.pages.length === 0;
    if (isNew && this.joinedTo !== edge) Object.assign(this, { before: null, isFirst: false });
    const before = this.before ?? this.first ?? edge;
    const reply = await this.load("top", { before });
    if (!reply) return;
    if (isNew) this.joinedTo = edge;
    this.add(reply.messages.filter(({ seq }) => seq < before), true);
    Object.assign(this, { before: reply.next?.before ?? null, isFirst: reply.next === null });
    while (this.isTooMuch()) this.drop(false);
    this.onChange();
  }

  /** Fetch the page after the last, up to the page's own log. */
  async newer(edge) {
    if (this.end.state === "loading" || this.pages.length === 0) return;
    const after = this.after ?? this.last;
    const reply = await this.load("end", { after });
    if (!reply) return;
    this.add(reply.messages.filter(({ seq }) => seq > after && seq < edge), false);
    this.after = reply.next?.after ?? null;
    if (reply.next === null || reply.messages.some(({ seq }) => seq >= edge)) this.joinedTo = edge;
    while (this.isTooMuch()) this.drop(true);
    this.onChange();
  }

  /** Have the page with message `seq` in its middle, in place of all others, for its caller to show; false if the record does not have it. Throws an Error in words. */
  async open(seq, edge) {
    const opening = (this.opening += 1);
    const reply = withTrees(await this.ask({ around: seq, limit: PAGE, max_chars: CHARS, trees: 1 }));
    if (opening !== this.opening) return null; // something else was asked for meanwhile
    this.reaches = reply.reaches;
    if (!reply.messages.some((message) => message.seq === seq)) return false;
    this.clear();
    this.add(reply.messages.filter((message) => message.seq < edge), true);
    Object.assign(this, { before: reply.next?.before ?? null, isFirst: reply.next === null });
    if (reply.messages.some((message) => message.seq >= edge)) this.joinedTo = edge;
    return true;
  }

  /** Ask for one page; undefined when it failed, or when nobody waits for it any more. */
  async load(side, query) {
    const { run } = this;
    this.show(side, { state: "loading", why: "" });
    try {
      const reply = withTrees(await this.ask({ ...query, limit: PAGE, max_chars: CHARS, trees: 1 }));
      if (run !== this.run) return undefined;
      this[side] = IDLE;
      this.reaches = reply.reaches;
      this.version += 1;
      return reply;
    } catch (failure) {
      if (run === this.run) this.show(side, { state: "failed", why: failure.message });
      return undefined;
    }
  }

  /** Forget what failed. */
  recover() {
    for (const side of ["top", "end"]) if (this[side].state === "failed") this[side] = IDLE;
    this.version += 1;
  }

  show(side, state) {
    this[side] = state;
    this.version += 1;
    this.onChange();
  }

  isTooMuch() {
    return this.pages.length > PAGES_MIN && (this.count > PAST_MAX || this.chars > PAST_CHARS_MAX);
  }

  add(messages, isOlder) {
    if (messages.length === 0) return;
    if (isOlder) this.pages.unshift({ messages });
    else this.pages.push({ messages });
    this.version += 1;
    this.count += messages.length;
    for (const message of messages) {
      this.chars += message.content.length;
      this.places.set(message.id, this.placeOf(message));
      this.bySeq.set(message.seq, message);
    }
  }

  /** Forget the page at one end. */
  drop(isOlder) {
    const { messages } = isOlder ? this.pages.shift() : this.pages.pop();
    this.version += 1;
    this.count -= messages.length;
    for (const { id, seq, content } of messages) {
      this.chars -= content.length;
      this.places.delete(id);
      this.bySeq.delete(seq);
    }
    if (isOlder) Object.assign(this, { before: null, isFirst: false });
    else Object.assign(this, { after: null, joinedTo: null });
  }
}
