// What is shown alone, what is muted, and the address. Run: node --test tests/ui/
import test from "node:test";
import assert from "node:assert/strict";
import { namesPlace, partOf, withPart } from "../../ui/address.js";
import { isOnly, mayMute, mutesOf, pairOf, routeOf, targetsOf, wordsOfOnly } from "../../ui/only.js";

const said = (sender, recipient, more = {}) => ({ id: "m", sender, recipient, content: "x", kind: "message", ts: 0, seq: 1, origin: "agent", ...more });

test("a route is the same in both directions, and names the operator human", () => {
  assert.equal(routeOf(said("bob", "ann")), "ann ↔ bob");
  assert.equal(routeOf(said("ann", "bob")), pairOf("bob", "ann"));
  assert.equal(routeOf(said("human", "ann", { origin: "operator" })), routeOf(said("ann", "human")));
  assert.equal(routeOf(said("ann", "#x")), "#x");
  assert.equal(routeOf(said("hub", "all", { origin: "hub", kind: "system", seq: 0 })), "");
  assert.equal(routeOf({ kind: "marker", content: "" }), "");
});

test("a peer whose name begins as a route does is a peer", () => {
  assert.equal(isOnly(said("=x", "all"), "==x"), true);
  assert.equal(isOnly(said("operator", "all"), "operator"), false);
  assert.equal(wordsOfOnly("=operator"), "operator");
});

test("words, targets, and what cannot be muted", () => {
  assert.deepEqual(["=ann", "all", "#x", "ann ↔ bob", "ann ↔ human", "operator"].map(wordsOfOnly), ["ann", "what goes to everyone", "#x", "ann and bob", "ann and the operator", "the operator"]);
  assert.deepEqual(["=ann", "all", "#x", "ann ↔ bob", "ann ↔ human"].map(targetsOf), [["ann"], ["all"], ["#x"], ["ann", "bob"], ["ann"]]);
  assert.deepEqual(["=ann", "all", "#x", "ann ↔ bob", "ann ↔ human", "operator", ""].map(mayMute), [true, true, true, true, false, false, false]);
  assert.deepEqual([...mutesOf(["a", 1, null, "b"])], ["a", "b"]);
  assert.equal(mutesOf({}).size, 0);
});

test("a part of the address changes and all others stay", () => {
  assert.equal(withPart("", "only=", "x"), "#only=x");
  assert.equal(withPart("#q=pay&seq=4", "only=", "%3Dann"), "#q=pay&seq=4&only=%3Dann");
  assert.equal(withPart("#q=pay&only=a", "only=", null), "#q=pay");
  assert.equal(withPart("#only=a", "only=", null), "");
  assert.equal(partOf("#q=pay&only=a", "only="), "a");
  assert.equal(partOf("#t-12&only=a", "t-"), "12");
  assert.equal(partOf("#flow", "only="), null);
  assert.deepEqual(["", "#q=a", "#only=b&q=a", "#q=a&seq=3", "#t-1", "#at=x"].map(namesPlace), [false, false, false, true, true, true]);
});
