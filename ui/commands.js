// Commands: what the composer understands besides speech, and what it offers while one types. Pure.
//
//   commandOf(text, model)         null: speech; else {frame} | {target} | {go} | {complaint}
//   aimOf(text, model)             null: it names nobody at its head; else {to: [scopes], rest} | {complaint}
//   offersFor(text, caret, model)  null, or {from, options: [{label, hint, insert | target, name?}]}

const RATE = /^(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)$/;

const plain = (text) => text.replace(/^@/, "");
const peers = (model) => model.peers.map((peer) => peer.name);
const channels = (model) => Object.keys(model.channels);
const sticks = (model) => Object.keys(model.floors);
const scopes = (model) => ["all", ...peers(model), ...channels(model)];

/** A command for the whole room, or with a name for one peer. */
const roomOr = (frame, make) => (given, model) => (given ? among("peer", peers, make)(given, model) : { frame });

/** One argument that must be among what the room has; a channel may be named without its #. */
function among(kind, list, make) {
  return (given, model) => {
    const known = list(model);
    const name = [given, plain(given), `#${given}`].find((one) => known.includes(one));
    if (name !== undefined) return make(name);
    return { complaint: given ? `There is no ${kind} ${given}.` : `Which ${kind}?` };
  };
}

// name -> what it does, what may follow, how it reads that
export const COMMANDS = {
  to: { text: "choose where messages go", list: scopes, read: among("such target as", scopes, (name) => ({ target: name })) },
  pause: { text: "pause the room, or one peer", list: peers, read: roomOr({ action: "pause" }, (name) => ({ frame: { pause_peer: name } })) },
  resume: { text: "resume the room, or one peer", list: peers, read: roomOr({ action: "resume" }, (name) => ({ frame: { resume_peer: name } })) },
  stop: { text: "stop all (asks first)", read: (given) => (given ? { complaint: `Stop is for the whole room: /stop alone. For one agent there are /pause and /kick.` } : { frame: { action: "stop" } }) },
  reset: { text: "reset a stopped room, or one agent", list: peers, read: roomOr({ action: "reset" }, (name) => ({ frame: { command: "reset", to: name } })) },
  interrupt: { text: "tell one agent to drop what it does", list: peers, read: among("peer", peers, (name) => ({ frame: { command: "interrupt", to: name } })) },
  ping: { text: "ask the hub how a peer is", list: peers, read: among("peer", peers, (name) => ({ frame: { heartbeat: name } })) },
  kick: { text: "end a peer's seat (asks first)", list: peers, read: among("peer", peers, (name) => ({ frame: { kick: name } })) },
  clear: { text: "put a talking stick away", list: sticks, read: (given, model) => clearStick(given || "all", model) },
  close: { text: "close a channel (asks first)", list: channels, read: among("channel", channels, (name) => ({ frame: { close_channel: name } })) },
  rate: { text: "messages a second and burst for every peer: /rate 2 10", read: readRate },
  help: { text: "show the keyboard map", read: () => ({ go: "help" }) },
};

const clearStick = among("held stick of", sticks, (scope) => ({ frame: { floor: { action: "clear", scope } } }));

function readRate(given) {
  const found = RATE.exec(given);
  if (!found) return { complaint: "Say it as /rate 2 10: messages a second, then the burst." };
  const [refill_rate, capacity] = [Number(found[1]), Number(found[2])];
  if (refill_rate < 0.001 || capacity < 1) return { complaint: "At least 0.001 a second, and a burst of at least 1." };
  return { frame: { set_rate: { refill_rate, capacity } } };
}

/** What a text means that begins with a slash; two slashes say one. */
export function commandOf(text, model) {
  if (!text.startsWith("/") || text.startsWith("//")) return null;
  const [, name, given] = /^\/(\S*)\s*([^]*)$/.exec(text);
  if (!Object.hasOwn(COMMANDS, name)) return { complaint: `There is no command /${name}. To say it, begin with two slashes.` };
  return COMMANDS[name].read(given.trim(), model);
}

/** The words to be said: a doubled slash at their head is one. */
export const speechOf = (text) => (text.startsWith("//") ? text.slice(1) : text);

// ---- whom a text names at its head -----------------------------------------------------------------------------

const ADDRESSED_MAX = 16; // peers of one message; as the hub takes them

/** Whom "@api @web please stop" or "#plans, stop" is for, by its first words; a blank before them is the way to say them as they are. */
export function aimOf(text, model) {
  if (text.startsWith("#")) return aimAtChannel(text, model);
  const to = [];
  let rest = text;
  while (rest.startsWith("@")) {
    const known = nameAt(rest.slice(1), peers(model));
    const name = known === undefined && !to.length ? nameAt(rest.slice(1), EVERYBODY) : known;
    if (name === undefined) return unknownAim(/^@\S*/.exec(rest)[0], "peer");
    if (name === null) return { complaint: `${/^@\S*/.exec(rest)[0]} may be any of several here: choose whom it is for beside To, and begin with a blank.` };
    if (!to.includes(name)) to.push(name);
    rest = rest.slice(1 + name.length).replace(/^[\s,:;]*(?:(?:and|&)\s+(?=@))?/, "");
    if (EVERYBODY.includes(name)) return { to: ["all"], rest };
  }
  if (to.length > ADDRESSED_MAX) return { complaint: `At most ${ADDRESSED_MAX} peers of one message; this names ${to.length}.` };
  return to.length ? { to, rest } : null;
}

const EVERYBODY = ["all", "everyone"];

function aimAtChannel(text, model) {
  const name = nameAt(text, channels(model));
  if (name) return { to: [name], rest: text.slice(name.length).replace(/^[\s,:;]+/, "") };
  return unknownAim(/^#\S*/.exec(text)[0], "channel");
}

/** An @ or # that stands alone, or before another one, names nobody: it is a heading, a sign. */
const unknownAim = (word, kind) => (/^[@#][\p{L}\p{N}_]/u.test(word) ? { complaint: `There is no ${kind} ${word}.` } : null);

/**
 * The one of `names` that a text begins with, whole, whatever its case; as it is written, before others. Null: it may be
 * any of several, one of which goes on where another ends; then nobody but the operator can tell.
 */
function nameAt(text, names) {
  const isAt = (name) => text.slice(0, name.length).toLowerCase() === name.toLowerCase() && /^(?:$|[\s,:;]|[.!?]+(?:\s|$))/.test(text.slice(name.length));
  const found = names.filter(isAt).sort((a, b) => b.length - a.length || text.startsWith(b) - text.startsWith(a));
  return found.some(({ length }) => length !== found[0].length) ? null : found[0];
}

// ---- completion -------------------------------------------------------------------------------------------------

const OFFERS_MAX = 60; // of names; the list scrolls

export function offersFor(text, caret, model) {
  const before = text.slice(0, caret);
  const found = commandOffers(before, model) ?? argumentOffers(before, model) ?? nameOffers(before, model);
  return found && found.options.length ? { ...found, options: found.options.slice(0, OFFERS_MAX) } : null;
}

const startsLike = (word, typed) => word.toLowerCase().startsWith(typed.toLowerCase());

function commandOffers(before) {
  const typed = /^\/([a-z]*)$/i.exec(before)?.[1];
  if (typed === undefined) return null;
  const fitting = Object.entries(COMMANDS).filter(([name]) => startsLike(name, typed));
  const takesMore = (name) => COMMANDS[name].list || name === "rate";
  return { from: 0, options: fitting.map(([name, { text }]) => ({ label: `/${name}`, hint: text, insert: `/${name}${takesMore(name) ? " " : ""}` })) };
}

function argumentOffers(before, model) {
  const [, name, typed] = /^\/([a-z]+)\s+(.*)$/is.exec(before) ?? [];
  if (name === undefined || !COMMANDS[name]?.list) return null;
  const options = COMMANDS[name].list(model).filter((one) => startsLike(one, plain(typed)) || startsLike(one, `#${typed}`));
  if (options.some((one) => one === typed)) return null; // it stands there whole
  return { from: before.length - typed.length, options: options.map((one) => ({ label: one === "all" ? "everyone" : one, name: one, hint: "", insert: one })) };
}

function nameOffers(before, model) {
  const [, typed] = /(?:^|\s)([@#]\S*)$/.exec(before) ?? [];
  if (typed === undefined) return null;
  const from = before.length - typed.length;
  const names = typed.startsWith("#") ? channels(model).filter((one) => startsLike(one, typed)) : peers(model).filter((one) => startsLike(one, typed.slice(1)));
  const spelt = (name) => (typed.startsWith("#") ? name : `@${name}`);
  const isWhole = (name) => spelt(name) === typed;
  if (from === 0) return { from, options: names.map((name) => ({ label: spelt(name), name, hint: "send to it", target: name })) };
  return { from, options: names.filter((name) => !isWhole(name)).map((name) => ({ label: spelt(name), name, hint: "", insert: `${spelt(name)} ` })) };
}
