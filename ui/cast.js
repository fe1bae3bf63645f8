// Cast: the agents that the hub may start, how each is, in words, and what may be asked of it. Pure: no DOM, no clock; time
// comes as an argument. A row: {name, kind, type, start, state, since, at, restarts, restarts_max, exit_code, why, limits,
// messages, turns, dollars, output, start, sessions, aside}.
//
//   stateText(row, now)      "thinking for 40 s"; "ended, exit code 3, 2 min ago"
//   factsText(row)           what it has said and cost, and what bounds it
//   rulesOf(model, row)      [{verb, word, icon, frame, why}]: what can be asked of it; `why` it cannot be now, or ""
//   stageNeeds(model)        who has failed, as needsOf gives them

import { ageText, many } from "./model.js";

// state -> its words, and whether it lasts ("for 40 s"), is over ("2 min ago") or is just so
const STATES = {
  ready: { words: "not started" },
  asleep: { words: "asleep until it is spoken to", isLasting: true },
  starting: { words: "starting", isLasting: true },
  seated: { words: "seated", isLasting: true },
  thinking: { words: "thinking", isLasting: true },
  waiting: { words: "waiting", isLasting: true },
  silent: { words: "silent", isLasting: true },
  restarting: { words: "starting again soon", isLasting: true },
  ending: { words: "ending", isLasting: true },
  ended: { words: "ended", isOver: true },
  failed: { words: "failed", isOver: true },
};
export const RUNNING = new Set(["starting", "seated", "thinking", "waiting", "silent", "restarting"]);
const SEATED = new Set(["seated", "thinking", "waiting", "silent"]);

export function stateText({ state, at, exit_code: code }, now) {
  const { words, isLasting, isOver } = STATES[state] ?? { words: state };
  const age = ageText(now / 1000 - at);
  if (isLasting) return `${words}, for ${age}`.replace(/^(\w+), for/, "$1 for"); // a word alone needs no comma
  return isOver ? `${words}${code === null ? "" : `, exit code ${code}`}, ${age} ago` : words;
}

export function factsText({ kind, type, start, messages, turns, dollars, restarts, restarts_max: most, limits, sessions = 0, aside = null }) {
  const cost = dollars === null ? kind === "claude" && turns > 0 && "cost unknown" : `$${dollars.toFixed(2)}`;
  const used = [messages > 0 && many(messages, "message"), turns > 0 && many(turns, "turn"), cost, sessions > 0 && many(sessions, "session"), aside && `${many(aside.count, "message")} set aside, the latest ${aside.seq} of ${aside.sender}`, restarts > 0 && `restarted ${restarts} of ${most} times`];
  const who = [kind, type, start && start !== "at once" && `starts ${start}`].filter(Boolean).join(", ");
  return [who, ...used, limits.length > 0 && `at most ${limits.join(", ")}`].filter(Boolean).join(" · ");
}

// verb -> its word, the states in which it can be asked, and why not in others
const VERBS = {
  start: { word: "Start", icon: "play", from: ["ready", "ended", "failed"], why: (state) => (state === "ending" ? "it is ending: wait a moment" : state === "asleep" ? "it starts when it is spoken to" : "it runs already") },
  end: { word: "End", icon: "stop", from: [...RUNNING, "asleep"], why: (state) => (state === "ending" ? "it is ending already" : "it does not run") },
  restart: { word: "Restart", icon: "reset", from: [...RUNNING], why: (state) => (state === "ending" ? "it is ending: wait a moment" : "it does not run: start it") },
};

/** Who is started in a stopped room ends at once. */
const whyNot = (model, verb) => (model.mode === "stopped" && verb !== "end" ? "the room is stopped: reset it first" : "");

export function rulesOf(model, { name, state }) {
  const rules = Object.entries(VERBS).map(([verb, { word, icon, from, why }]) => (
    { verb, word, icon, frame: { stage: verb, agent: name }, why: from.includes(state) ? whyNot(model, verb) : why(state) }));
  const isHere = SEATED.has(state) && model.peers.some((peer) => peer.name === name && peer.state === "live");
  return [...rules, { verb: "interrupt", word: "Interrupt", icon: "bolt", frame: { command: "interrupt", to: name }, why: isHere ? "" : "it has no seat in the room" }];
}

export const rowOfStage = (model, name) => model.stage.agents.find((row) => row.name === name);

/** Who could not start, or has failed too often, and why: until it is started again. */
export const stageNeeds = (model) => model.stage.agents.filter(({ state }) => state === "failed").map(({ name, why, since, at }) => ({
  id: `stage:${name}:${since}`, kind: "stage", who: name, verb: "does not run", text: why || "it has failed", since: at * 1000,
  help: { word: "Start", frame: { stage: "start", agent: name } }, also: { word: "Show", go: ["stage", name] }, at: ["stage", name],
}));
