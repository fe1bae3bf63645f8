// What needs the operator, and the reading debt.

import assert from "node:assert/strict";
import { test } from "node:test";
import { emptyModel, isLosing } from "../../ui/model.js";
import { readFileSync } from "node:fs";
import { DIED_TEXT, isForOperator, openUnsettled } from "../../ui/unsettled.js";
import { KINDS, meansOf, triedOf } from "../../ui/runbook.js";
import { actsOf, emptyDebt, minutesOf, needsOf, owe, owedOf, READ_PER_MIN, settleDebt, stateOfLoop } from "../../ui/needs.js";

const NOW = 1_700_000_000_000;

function room(parts = {}) {
  return Object.assign(emptyModel(), { mode: "running", peersAt: NOW }, parts);
}

const row = (name, more = {}) => ({ name, state: "live", listening: true, paused: false, waiting: 0, last_seen_age: 1, stop_told: null, ...more });
const kinds = (model, now = NOW) => needsOf(model, now).map((need) => need.kind);
let count = 0;
const said = (sender, content, more = {}) => ({ id: `m${(count += 1)}`, seq: count, ts: NOW / 1000 - 5, origin: "agent", kind: "message", sender, recipient: "all", content, ...more });

function says(model, ...messages) {
  model.log.push(...messages);
  return model;
}

test("a calm room needs nothing", () => {
  assert.deepEqual(needsOf(room({ peers: [row("api"), row("web")], log: [said("api", "all is well")] }), NOW), []);
});

test("a pending form is first, with who asks and what", () => {
  const model = room({ forms: [{ id: "f1", title: "Deploy?", asker: "api", ts: NOW / 1000 - 60 }], floors: { all: { scope: "all", holder: "web", hands: ["api"], since: NOW / 1000 - 400 } } });
  const [form, stick] = needsOf(model, NOW);
  assert.deepEqual([form.who, form.verb, form.text, form.help], ["api", "asks", "Deploy?", { word: "Answer", go: ["form", "f1"] }]);
  assert.equal(stick.text, "holds the stick of the whole room for 6 min; api waits.");
  assert.deepEqual(stick.help.frame, { floor: { action: "clear", scope: "all" } });
});

test("a turn at the stick is not too long", () => {
  assert.deepEqual(kinds(room({ floors: { all: { scope: "all", holder: "web", hands: [], since: NOW / 1000 - 100 } } })), []);
});

test("a peer is deaf when mail waits and it does not listen", () => {
  const deaf = { listening: false, waiting: 2, last_seen_age: 90 };
  assert.deepEqual(kinds(room({ peers: [row("web", deaf)] })), ["deaf"]);
  assert.match(needsOf(room({ peers: [row("web", deaf)] }), NOW)[0].text, /does not listen for 1 min: 2 messages wait/);
  assert.deepEqual(kinds(room({ peers: [row("web", { ...deaf, waiting: 0 })] })), [], "nothing waits for it");
  assert.deepEqual(kinds(room({ peers: [row("web", { ...deaf, last_seen_age: 10 })] })), [], "it is between two polls");
  assert.deepEqual(kinds(room({ peers: [row("web", { ...deaf, paused: true })] })), [], "the operator holds its mailbox");
  assert.deepEqual(kinds(room({ mode: "paused", peers: [row("web", deaf)] })), [], "the operator holds them all");
  assert.deepEqual(kinds(room({ peers: [row("web", { waiting: 40 })] })), ["deaf"], "it listens and does not keep up");
  assert.deepEqual(kinds(room({ peers: [row("web", { ...deaf, deaf_age: 5 })] })), [], "the hub knows better since when");
});

test("a stop that not everybody has names who lacks it", () => {
  const model = room({ mode: "stopped", modeAt: NOW - 10_000, peers: [row("api", { stop_told: true }), row("web", { stop_told: false })] });
  const [need] = needsOf(model, NOW);
  assert.equal(need.who, "web");
  assert.match(need.text, /1 of 2 do/);
  assert.deepEqual(need.help.frame, { kick: "web" });
  assert.deepEqual(kinds({ ...model, modeAt: NOW - 1000 }), [], "parked polls are answered first");
});

test("a mention calls the operator until it is answered, whatever else he says", () => {
  const model = says(room(), said("web", "@operator may I drop the table?", { recipient: "#db" }));
  assert.deepEqual(kinds(model), ["mention"]);
  const [{ help, also }] = needsOf(model, NOW);
  assert.deepEqual([help.word, also.word, also.go[0]], ["Show", "Answer", "reply"]);
  says(model, said("human", "good morning", { origin: "operator", recipient: "all" }), said("human", "which one?", { origin: "operator", recipient: "#db" }), said("human", "you?", { origin: "operator", recipient: "web" }));
  assert.deepEqual(kinds(model), ["mention"], "other words, be they to the same");
  says(model, said("human", "no", { origin: "operator", recipient: "#db", reply_to: model.log[0].seq }));
  assert.deepEqual(kinds(model), []);
});

test("no mention goes because there are many; of one peer that writes and writes, the oldest are counted", () => {
  const model = says(room(), said("web", "@operator first"), ...Array.from({ length: 12 }, (_, n) => said(`p${n}`, "@operator me, too")), ...Array.from({ length: 900 }, () => said("api", "words")));
  assert.equal(kinds(model).length, 13);
  says(model, ...Array.from({ length: 60 }, (_, n) => said("flood", `look ${n}`, { recipient: "human" })));
  const found = needsOf(model, NOW);
  assert.equal(found.length, 13 + 20);
  assert.equal(found[0].who, "web");
  assert.match(found.find(({ who }) => who === "flood").text, /^look 40 \(and 40 before it\)$/);
});

const storage = (kept = {}) => ({ kept, getItem: (key) => kept[key] ?? null, setItem: (key, text) => { kept[key] = text; }, removeItem: (key) => delete kept[key] });

test("words to the operator live through a reload, and so does what was waved away", () => {
  const box = storage();
  const before = openUnsettled(box);
  const model = says(room({ room: "r1" }), said("web", "@operator one"), said("api", "@operator two"));
  before.look(model, NOW);
  before.dismiss(needsOf(model, NOW)[1].id);
  const after = openUnsettled(box);
  const fresh = says(room({ room: "r1" }), said("api", "much later"));
  after.look(fresh, NOW);
  assert.deepEqual(needsOf(fresh, NOW).map((need) => [need.text, after.isDismissed(need.id)]), [["one", false], ["two", true]].map(([text, is]) => [`@operator ${text}`, is]));
  says(fresh, said("human", "yes", { origin: "operator", reply_to: model.log[0].seq }));
  assert.equal(needsOf(fresh, NOW).length, 1, "an answer settles what came from before the reload");
});

test("questions that died with a room are a need, until everybody was told", () => {
  for (const reloads of [false, true]) {
    const box = storage();
    let one = openUnsettled(box);
    const old = says(room({ room: "r1", forms: [{ id: "f", title: "Deploy?", asker: "api", ts: 1 }], owed: [{ seq: 7, asker: "web", to: "human", text: "which port?", ts: 1 }] }), said("web", "@operator hi"));
    one.look(old, NOW);
    assert.ok(!kinds(old).includes("restart"));
    if (reloads) one = openUnsettled(box);
    const model = room({ room: "r2" });
    one.look(model, NOW);
    const [need] = needsOf(model, NOW);
    assert.equal(need.text, "The hub started anew, and 3 questions that waited for the operator died with the old room: api: “Deploy?”; web: “which port?”; web: “@operator hi”.");
    assert.deepEqual(need.help, { word: "Tell everyone", frame: { say: DIED_TEXT, to: "all" } });
    one.look(model, NOW + 60_000);
    assert.equal(kinds(model).length, 1, "it lasts");
    says(model, said("human", DIED_TEXT, { origin: "operator", ts: NOW / 1000 + 1 }));
    one.look(model, NOW + 60_000);
    assert.deepEqual(kinds(model), []);
  }
});

test("a room of before in which nothing waited leaves nothing", () => {
  const one = openUnsettled(storage());
  one.look(room({ room: "r1" }), NOW);
  const model = room({ room: "r2" });
  one.look(model, NOW);
  assert.deepEqual(kinds(model), []);
});

const lost = { count: 8000, since: NOW / 1000 - 600, ts: NOW / 1000 - 4, seq: 7, sender: "api" };

test("a mailbox that loses messages is a need that names who loses what, and stays when it has stopped", () => {
  const model = room({ room: "r", peers: [row("api"), row("web", { waiting: 1000, last_seen_age: 5, lost })] });
  const need = needsOf(model, NOW).find(({ kind }) => kind === "loss");
  assert.deepEqual([need.who, need.isQuiet, need.also.frame], ["web", false, { pause_peer: "api" }]);
  assert.equal(need.text, "loses what is said to it: its mailbox is full, and 8,000 messages gave way, the latest from api, 4 s ago.");
  const over = needsOf(room({ room: "r", peers: [row("web", { lost })] }), NOW + 600_000)[0];
  assert.deepEqual([over.kind, over.id, over.isQuiet], ["loss", need.id, true]);
  assert.match(over.text, /^has lost messages: its mailbox was full/);
  assert.ok(isLosing(row("web", { lost }), NOW) && !isLosing(row("web", { lost }), NOW + 600_000) && !isLosing(row("web"), NOW));
});

test("who is refused in mass is a need with hands; once or twice is none", () => {
  const flood = (refused, more) => needsOf(room({ peers: [row("api", { refused, ...more })] }), NOW);
  const [need] = flood({ count: 109, of: 120 });
  assert.equal(need.text, "floods the room: 109 of its last 120 sends were refused for being too fast.");
  assert.deepEqual([need.help.frame, need.also.frame], [{ pause_peer: "api" }, { command: "interrupt", to: "api" }]);
  assert.equal(flood({ count: 109, of: 120 }, { paused: true })[0].help.word, "Kick api");
  assert.deepEqual([flood({ count: 3, of: 9 }), flood(null)], [[], []]);
});

test("a peer that is away or has gone quiet is a need; many are one; who has ended as told is none", () => {
  const silent = (mode, ...peers) => needsOf(room({ mode, peers }), NOW);
  const away = (name) => row(name, { state: "reaped", listening: false, last_seen_age: 400 });
  assert.deepEqual(silent("running", away("api")).map((need) => [need.kind, need.text, need.also.word]), [["away", "is away: it has not called for 6 min.", "Kick api"]]);
  assert.deepEqual(silent("running", row("api", { quiet: true, last_seen_age: 200 })).map((need) => [need.kind, need.help.word]), [["silent", "Ping api"]]);
  assert.deepEqual(silent("running", row("api", { state: "reaped", listening: false, waiting: 2, last_seen_age: 400 })).map(({ kind }) => kind), ["deaf"], "one need for one cause");
  assert.match(silent("running", ...["a", "b", "c", "d", "e"].map(away))[0].text, /^a, b, c, d and 1 more have gone silent; 5 of them are away/);
  assert.deepEqual(silent("stopped", { ...away("api"), stop_told: true }), []);
  assert.deepEqual(needsOf(room({ peers: [row("api", { quiet: true })], health: { quiet: { state: "converged", why: [], since: NOW / 1000 } } }), NOW).map(({ kind }) => kind), ["converged"]);
});

test("who only watches may look at a need and do nothing", () => {
  const model = room({ forms: [{ id: "f1", title: "Deploy?", asker: "api", ts: NOW / 1000 - 60 }], owed: [debt({ to: "human" }), debt({ ts: NOW / 1000 - 400 })],
    peers: [row("api", { refused: { count: 50, of: 60 } })], floors: { all: { scope: "all", holder: "web", hands: [], since: NOW / 1000 - 400 } } });
  model.link = { ...model.link, role: "observer" };
  for (const need of needsOf(model, NOW)) for (const act of actsOf(model, need)) assert.deepEqual([act.word, act.frame, act.go[0] === "reply"], ["Show", undefined, false], need.kind);
  assert.deepEqual(actsOf(model, needsOf(model, NOW).find(({ kind }) => kind === "question")), [{ word: "Show", go: ["message", null, 7] }]);
  model.link = { ...model.link, role: "operator" };
  for (const need of needsOf(model, NOW)) assert.ok(actsOf(model, need).length >= 1 && actsOf(model, need).length <= 2);
});

test("every kind of need has its page in the runbook, with what the operator has tried", () => {
  const source = readFileSync(new URL("../../ui/needs.js", import.meta.url), "utf8") + readFileSync(new URL("../../ui/spent.js", import.meta.url), "utf8");
  const made = new Set([...source.matchAll(/kind: "(\w+)"/g)].map(([, kind]) => kind));
  assert.deepEqual([...made, "converged", "died"].filter((kind) => !KINDS.includes(kind)), []);
  for (const kind of KINDS) assert.ok(meansOf({ kind }) && triedOf({ kind }, { list: [] }, NOW), kind);
  const deed = { subject: "api", state: "effective", at: NOW - 60_000, word: "Ping api", text: "the hub answered", told: [], untold: [] };
  assert.match(triedOf({ kind: "deaf", who: "api" }, { list: [deed] }, NOW), / You, 1 min ago: Ping api: the hub answered\.$/);
  assert.doesNotMatch(triedOf({ kind: "deaf", who: "web" }, { list: [deed] }, NOW), /You/);
});

test("a mention is a word of its own, of an agent", () => {
  for (const text of ["@human: look", "please, @Operator!", "(@operator)"]) assert.ok(isForOperator(said("a", text)), text);
  for (const text of ["me@operator.example", "@operators", "@humankind", "the operator", "@@operator"]) assert.ok(!isForOperator(said("a", text)), text);
  assert.ok(!isForOperator(said("hub", "@operator", { origin: "hub" })));
});

const loop = (more = {}) => ({ lane: "api ↔ web", state: "held", ts: NOW / 1000 - 90, credit: 0, waiting: 3, waits_from: 9, kind: "thanks", level: "hold", count: 9, of: 12,
  names: ["api", "web"], first_seq: 1, last_seq: 9, words: "9 of the last 12 only thank", ...more });
const looping = (...lanes) => room({ loops: { upto: "hold", release: 0, lanes } });

test("a lane that is held needs a ruling, with its evidence and what waits", () => {
  const [need] = needsOf(looping(loop()), NOW);
  assert.equal(need.text, "api and web go round in circles and are held: 9 of the last 12 only thank; 3 messages wait.");
  assert.deepEqual([need.kind, need.help, need.isQuiet], ["loop", { word: "Rule on it", go: ["loop", "api ↔ web"] }, undefined]);
  const [plan] = needsOf(looping(loop({ lane: "#plans", waiting: 1 })), NOW);
  assert.match(plan.text, /^#plans goes round in circles and is held: .*; 1 message waits\.$/);
  assert.equal(needsOf(looping(loop({ waiting: 4 })), NOW)[0].id, need.id, "one more waits: it is the same hold");
  assert.notEqual(needsOf(looping(loop({ ts: NOW / 1000 })), NOW)[0].id, need.id, "it was held again");
});

test("a slowed lane comes last and calls nobody; a hint, a credit, a closed or a free lane is no need", () => {
  const floors = { all: { scope: "all", holder: "web", hands: [], since: NOW / 1000 - 400 } };
  const model = Object.assign(looping(loop({ state: "watched", level: "slow" })), { floors });
  assert.deepEqual(kinds(model), ["stick", "slow"]);
  assert.equal(needsOf(model, NOW)[1].isQuiet, true);
  for (const calm of [{ state: "watched", level: "hint" }, { state: "watched", level: "slow", credit: 5 }, { state: "closed" }, { state: "free" }]) assert.deepEqual(kinds(looping(loop(calm))), [], JSON.stringify(calm));
});

test("what has become of a lane is said in words", () => {
  assert.equal(stateOfLoop(loop()), "held");
  assert.equal(stateOfLoop(loop({ state: "watched", level: "hint", credit: 12 })), "watched; 12 of 20 messages left");
  assert.equal(stateOfLoop(loop({ state: "watched", level: "slow", credit: 12 })), "slowed; 12 of 20 messages left");
  assert.equal(stateOfLoop(loop({ state: "watched", level: "slow" })), "slowed");
  assert.match(stateOfLoop(loop({ state: "closed" })), /^closed/);
  assert.match(stateOfLoop(loop({ state: "free" })), /^may run/);
});

test("more than three that do not fetch their mail are one need, which counts it", () => {
  const deaf = ["api", "docs", "ops", "web"].map((name) => row(name, { listening: false, waiting: 300, last_seen_age: 90 }));
  assert.equal(needsOf(room({ peers: deaf.slice(1) }), NOW).length, 3);
  const [one, ...more] = needsOf(room({ peers: deaf }), NOW);
  assert.deepEqual(more, []);
  assert.match(one.text, /^api, docs, ops and web do not fetch their mail: 1,200 messages wait for them\.$/);
  assert.deepEqual(one.help.go, ["roster", "api"]);
});

test("a peer whose mail is held is not deaf for it", () => {
  assert.deepEqual(kinds(room({ peers: [row("web", { waiting: 40, held: 40 })] })), []);
  assert.match(needsOf(room({ peers: [row("web", { waiting: 65, held: 40 })] }), NOW)[0].text, /25 messages wait/);
});

test("a need keeps its id while its cause lasts, and a new cause has a new one", () => {
  const stopped = (...deaf) => room({ mode: "stopped", modeAt: NOW - 60_000, peers: ["api", "web"].map((name) => row(name, { stop_told: !deaf.includes(name) })) });
  const [one, same, other] = [stopped("api", "web"), stopped("api", "web"), stopped("web")].map((model) => needsOf(model, NOW)[0].id);
  assert.equal(one, same);
  assert.notEqual(one, other);
});

test("the debt grows while nobody looks, and is paid back at reading speed", () => {
  const model = says(room(), said("api", "x".repeat(500)));
  const debt = emptyDebt();
  owe(debt, model, false, NOW);
  assert.equal(debt.chars, 0, "what was said before the page opened is history");
  says(model, said("api", "x".repeat(READ_PER_MIN)), said("hub", "y".repeat(9000), { origin: "hub" }), said("human", "z".repeat(900), { origin: "operator" }));
  owe(debt, model, false, NOW + 1000);
  assert.equal(minutesOf(debt.chars), 1);
  assert.equal(debt.since, NOW + 1000);
  owe(debt, model, true, NOW + 31_000);
  assert.equal(minutesOf(debt.chars), 0.5);
  says(model, said("api", "x".repeat(10_000)));
  owe(debt, model, true, NOW + 61_000);
  assert.deepEqual([debt.chars, debt.since], [0, null], "what arrives while one looks is looked at");
  says(model, said("api", "x".repeat(2000)));
  owe(debt, model, false, NOW + 62_000);
  settleDebt(debt, model);
  assert.equal(owe(debt, model, false, NOW + 63_000).chars, 0);
});

const debt = (more) => ({ seq: 7, asker: "web", to: "api", text: "which port?", ts: NOW / 1000 - 10, ...more });

test("who owes whom is listed with a nudge that answers nothing, and a way to settle", () => {
  const [direct, lane, own] = owedOf(room({ owed: [debt(), debt({ seq: 8, to: "#x" }), debt({ seq: 9, asker: "human" })] }));
  assert.deepEqual(direct.acts.map((act) => act.word), ["Nudge", "Settle"]);
  assert.deepEqual([direct.acts[0].frame.to, direct.acts[0].frame.reply_to], ["api", 7]);
  assert.equal(direct.acts[0].frame.say, "Please answer this, or decline it, with say(reply_to=7) / say(declines=7).", "no peer's words in the operator's voice");
  assert.equal(direct.acts[1].frame.settles, 7);
  assert.deepEqual([lane.acts[0].frame.to, "reply_to" in lane.acts[0].frame], ["#x", false], "heard by its asker, it would settle the question");
  assert.equal(lane.acts[0].frame.say, "Somebody please answer message 8, with say(reply_to=8).");
  assert.equal(own.acts[0].frame.to, "api");
});

test("a question to the operator needs him at once; one between peers when it grows old", () => {
  const message = said("web", "which port?", { recipient: "human", expects_answer: true });
  const model = room();
  model.log.push(message);
  model._indexes.set(message.id, 0);
  model._ids.set(message.seq, message.id);
  model.owed = [debt({ seq: message.seq, to: "human" }), debt()];
  assert.deepEqual(kinds(model), ["question"], "and it is no mention besides");
  assert.deepEqual(needsOf(model, NOW)[0].help, { word: "Answer", go: ["reply", message] });
  assert.deepEqual(kinds(model, NOW + 175_000), ["question", "owed"]);
  assert.equal(needsOf(model, NOW + 175_000)[1].text, "waits for an answer of api: which port?");
  assert.deepEqual(kinds({ ...model, mode: "paused" }, NOW + 175_000), ["question"], "the operator holds them all");
});

test("a nudge is told, and puts the need off: nobody is reminded twice in a breath", () => {
  const model = room({ owed: [debt({ ts: NOW / 1000 - 400 })] });
  assert.deepEqual(kinds(model), ["owed"]);
  const { say, to, reply_to } = owedOf(model)[0].acts[0].frame;
  model.log.push(said("human", say, { origin: "operator", recipient: to, reply_to, ts: NOW / 1000 }));
  assert.equal(owedOf(model)[0].nudgedAt, NOW);
  assert.deepEqual(kinds(model), []);
  assert.deepEqual(kinds(model, NOW + 181_000), ["owed"]);
});

test("a question to the operator that is older than the page is answered all the same", () => {
  const [need] = needsOf(room({ owed: [debt({ to: "human" })] }), NOW);
  assert.equal(need.help.word, "Answer");
  const [, message] = need.help.go;
  assert.deepEqual([message.seq, message.sender, message.content, message.id], [7, "web", "which port?", null]);
});

test("an observer is not told that he owes anything", () => {
  const watched = room({ owed: [debt({ to: "human" }), debt({ asker: "human", ts: NOW / 1000 - 400 })] });
  watched.link = { ...watched.link, role: "observer" };
  assert.deepEqual(needsOf(watched, NOW).map(({ verb, text }) => verb ?? text), ["asks the operator", "The operator waits for an answer of api: which port?"]);
});

test("what turns words is not in a need", () => {
  const [need] = needsOf(room({ owed: [debt({ to: "human", text: "a\u202eb\u061c\u2066c" })] }), NOW);
  assert.equal(need.text, "abc");
});

test("a quiet room that converged says why, and offers the stop", () => {
  const quiet = { state: "converged", since: NOW / 1000 - 720, why: ["every question has its answer"] };
  const [need] = needsOf(room({ health: { quiet } }), NOW);
  assert.deepEqual([need.kind, need.text, need.help], ["converged", "Nobody has spoken for 12 min, and it has converged: every question has its answer.", { word: "Stop all", frame: { action: "stop" } }]);
  assert.deepEqual(kinds(room({ mode: "paused", health: { quiet } })), [], "the operator holds it");
});

test("a quiet room that died names some reasons, and offers what helps first", () => {
  const quiet = { state: "died", since: NOW / 1000 - 720, why: ["a", "b", "c", "d", "e"] };
  const owed = [{ seq: 7, asker: "api", to: "web", text: "which port?", ts: NOW / 1000 - 10 }];
  const floors = { all: { scope: "all", holder: "web", hands: ["api"], since: NOW / 1000 } };
  const died = (parts) => needsOf(room({ health: { quiet }, ...parts }), NOW).find(({ kind }) => kind === "died");
  assert.match(died({}).text, /it has died: a; b; c; and 2 more\.$/);
  assert.deepEqual([died({ owed, floors }).help.word, died({ owed, floors }).help.frame.reply_to], ["Nudge", 7]);
  assert.deepEqual(died({ floors }).help.frame, { floor: { action: "clear", scope: "all" } });
  assert.deepEqual(died({ peers: [row("web", { waiting: 1 })] }).help.go, ["roster", "web"]);
});

test("a quiet room that waits for the operator is no need of its own", () => {
  assert.deepEqual(kinds(room({ health: { quiet: { state: "waiting", since: NOW / 1000 - 720, why: ["the operator is asked"] } } })), []);
});
