// Links for lookers-on. Run: node --test tests/ui/
import test from "node:test";
import assert from "node:assert/strict";
import { apply, emptyModel } from "../../ui/model.js";
import { addressOf, reachOf } from "../../ui/share.js";

test("a link leads to where the hub is known, with its token behind the #", () => {
  const made = { id: "1", token: "abc", url: "" };
  assert.equal(addressOf(made, "http://127.0.0.1:8765"), "http://127.0.0.1:8765/#token=abc");
  assert.equal(addressOf({ ...made, url: "https://caucus.example" }, "http://127.0.0.1:8765"), "https://caucus.example/#token=abc");
});

test("of a link is said who can follow it, and who can read it", () => {
  for (const host of ["127.0.0.1:8765", "localhost:8765", "[::1]:8765"]) assert.match(reachOf(`http://${host}/#token=a`), /this machine/);
  assert.match(reachOf("http://box.lan:8765/#token=a"), /plain http/);
  assert.doesNotMatch(reachOf("https://caucus.example/#token=a"), /plain|machine/);
});

test("the page keeps the token of the link that it has made, and forgets none for a list", () => {
  const model = apply(emptyModel(), { type: "shares", shares: [{ id: "1" }], made: { id: "1", token: "t", url: "" } });
  apply(model, { type: "shares", shares: [{ id: "1" }, { id: "2" }] });
  assert.deepEqual(model.shares.list.map(({ id }) => id), ["1", "2"]);
  assert.equal(model.shares.made.token, "t");
});
