// What the composer understands and offers.

import assert from "node:assert/strict";
import { test } from "node:test";
import { COMMANDS, aimOf, commandOf, offersFor, speechOf } from "../../ui/commands.js";

const model = { peers: [{ name: "api" }, { name: "web" }, { name: "The operator" }], channels: { "#plans": {}, "#play": {} }, floors: { all: {}, "#plans": {} } };

test("speech is speech, and a doubled slash says one", () => {
  assert.equal(commandOf("hello", model), null);
  assert.equal(commandOf("//etc is full", model), null);
  assert.equal(speechOf("//etc is full"), "/etc is full");
  assert.equal(speechOf("hello"), "hello");
});

test("commands become frames", () => {
  const cases = {
    "/pause": { action: "pause" }, "/pause web": { pause_peer: "web" }, "/pause @web": { pause_peer: "web" }, "/resume": { action: "resume" }, "/resume web": { resume_peer: "web" },
    "/stop": { action: "stop" }, "/reset": { action: "reset" }, "/reset web": { command: "reset", to: "web" }, "/interrupt api": { command: "interrupt", to: "api" },
    "/kick The operator": { kick: "The operator" }, "/ping api": { heartbeat: "api" }, "/close plans": { close_channel: "#plans" }, "/close #plans": { close_channel: "#plans" },
    "/clear": { floor: { action: "clear", scope: "all" } }, "/clear #plans": { floor: { action: "clear", scope: "#plans" } }, "/rate 0.5 4": { set_rate: { refill_rate: 0.5, capacity: 4 } },
  };
  for (const [text, frame] of Object.entries(cases)) assert.deepEqual(commandOf(text, model), { frame }, text);
  assert.deepEqual(commandOf("/to #plans", model), { target: "#plans" });
  assert.deepEqual(commandOf("/to @api", model), { target: "api" });
});

test("what is not understood is not said, and the complaint says why", () => {
  for (const text of ["/nonsense", "/kick", "/kick nobody", "/rate fast", "/rate 0 1", "/close api", "/__proto__", "/constructor x", "/"]) {
    assert.equal(typeof commandOf(text, model).complaint, "string", text);
  }
});

test("every command has words for its offer", () => {
  for (const [name, { text }] of Object.entries(COMMANDS)) assert.ok(name && text.length > 10, name);
});

test("a slash offers commands, their argument what the room has", () => {
  assert.deepEqual(offersFor("/p", 2, model).options.map((option) => option.label), ["/pause", "/ping"]);
  assert.deepEqual(offersFor("/kick ", 6, model).options.map((option) => option.insert), ["api", "web", "The operator"]);
  assert.deepEqual(offersFor("/close pl", 9, model), { from: 7, options: [{ label: "#plans", name: "#plans", hint: "", insert: "#plans" }, { label: "#play", name: "#play", hint: "", insert: "#play" }] });
  assert.equal(offersFor("/kick api", 9, model), null);
  assert.equal(offersFor("/kick zzz", 9, model), null);
});

test("a name at the head of the text chooses the target, elsewhere it is a mention", () => {
  assert.deepEqual(offersFor("@a", 2, model).options, [{ label: "@api", name: "api", hint: "send to it", target: "api" }]);
  assert.deepEqual(offersFor("ask @w", 6, model), { from: 4, options: [{ label: "@web", name: "web", hint: "", insert: "@web " }] });
  assert.deepEqual(offersFor("see #pla", 8, model).options.map((option) => option.insert), ["#plans ", "#play "]);
  assert.equal(offersFor("mail me@w", 9, model), null);
  assert.equal(offersFor("hello", 5, model), null);
});

test("a name that goes on where another ends takes no message from it, and an address is no name", () => {
  const room = { ...model, peers: ["api", "payments", "payments please", "api, web", "web"].map((name) => ({ name })) };
  for (const text of ["@payments please stop", "@api, web please stop"]) assert.match(aimOf(text, room).complaint, /may be any of several here/, text);
  assert.deepEqual(aimOf("@payments stop", room).to, ["payments"]);
  assert.deepEqual(aimOf("@web. Stop!", room).to, ["web"]);
  for (const text of ["@web.v2 please stop", "@web.example.com is down"]) assert.match(aimOf(text, room).complaint, /There is no peer @web\./, text);
  assert.match(aimOf("#plans.old is wrong", room).complaint, /There is no channel/);
});

test("a stop is for the whole room: with a name it is refused", () => {
  assert.match(commandOf("/stop web", model).complaint, /whole room/);
});
