// What is looked for: one line, read into words, phrases and names.

import assert from "node:assert/strict";
import { test } from "node:test";
import { isAsking, isFound, parse, recordOf, siftOf, wordsOf } from "../../ui/query.js";

const said = (content, more = {}) => ({ content, sender: "api", recipient: "all", origin: "agent", kind: "message", ...more });
const finds = (line, message) => isFound(message, parse(line));

test("words stand in any order, all of them, in any case", () => {
  assert.deepEqual(parse("Payments 409").wanted, ["payments", "409"]);
  assert.ok(finds("409 payments", said("Payments answer with 409 again")));
  assert.ok(!finds("409 payments", said("Payments answer with 500")));
  assert.ok(finds("API", said("who speaks is looked at, too")));
});

test("a phrase stands together, and a minus takes away", () => {
  assert.deepEqual(parse('"release plan" -draft -"not yet"').unwanted, ["draft", "not yet"]);
  assert.ok(finds('"release plan"', said("the Release\nplan is here")));
  assert.ok(!finds('"release plan"', said("a plan of the release")));
  assert.ok(!finds("plan -draft", said("the plan, a draft")));
  assert.ok(finds("plan -draft", said("the plan")));
});

test("a phrase goes on across links, marks and cells, as it is read", () => {
  assert.ok(finds('"see the docs now"', said("see [the docs](https://docs.example/a) now")));
  assert.ok(finds('"lexer.py 120"', said("| file | lines |\n|:--|--:|\n| `lexer.py` | 120 |")));
  assert.ok(finds('"lines lexer.py"', said("| file | lines |\n|:--|--:|\n| `lexer.py` | 120 |")));
  assert.ok(finds('"very bold words"', said("- very **bold** words")));
  assert.ok(finds("docs.example", said("see [the docs](https://docs.example/a)")), "its address is in it");
  assert.ok(finds("snake_case", said("a snake_case name")));
  assert.ok(finds('"one two"', said("- one\n- two")));
});

test("names tell who said it, to whom, and where", () => {
  const direct = said("hi", { recipient: "web" });
  const channel = said("hi", { recipient: "#plans" });
  const ruled = said("go", { sender: "human", origin: "operator", recipient: "api, web" });
  assert.ok(finds("from:api", direct) && !finds("from:web", direct) && finds("-from:web", direct));
  assert.ok(finds("from:@API", direct) && finds('from:"api"', direct));
  assert.ok(finds("to:web", direct) && finds("in:direct", direct) && !finds("in:direct", channel));
  assert.ok(finds("in:plans", channel) && finds("in:#plans", channel) && finds("in:all", said("x")) && !finds("in:plans", said("x")));
  assert.ok(finds("with:web", direct) && finds("with:api", direct) && !finds("with:db", direct));
  assert.ok(finds("from:operator", ruled) && finds("from:human to:web", ruled) && finds("with:api", ruled));
  assert.ok(finds('from:"The scribe"', said("x", { sender: "The scribe" })));
});

test("has: knows what a message is made of", () => {
  assert.ok(finds("has:code", said("```js\n1\n```")) && finds("has:code", said("run `ls`")) && !finds("has:code", said("a ` alone")));
  assert.ok(finds("has:link", said("https://x.example")) && finds("has:table", said("a|b\n---|---\n1|2")) && finds("has:list", said("1. a")));
  assert.ok(!finds("has:table", said("a | b")) && finds("-has:code", said("plain")));
});

test("what is not understood is said, and the rest still holds", () => {
  assert.deepEqual(parse("has:cats x").faults, ["has: takes code, link, table, list, not cats"]);
  assert.deepEqual(parse("has:cats x").wanted, ["x"]);
  assert.deepEqual(parse("from:").faults, ["from: needs a name"]);
  assert.deepEqual(parse('"half a').faults, ["a quote is not closed"]);
  assert.deepEqual(parse('"half a').wanted, ["half a"]);
  assert.equal(parse("word ".repeat(50)).wanted.length, 32);
  assert.equal(parse("word ".repeat(50)).faults.length, 1);
  for (const line of ["", "   ", "-", '""', "from:"]) assert.ok(!isAsking(parse(line)), line);
  assert.deepEqual(parse("http://x.example a:b").wanted, ["http://x.example", "a:b"], "other colons are words");
  assert.deepEqual(parse("well-known").wanted, ["well-known"]);
});

test("what is marked are the wanted words, the longest first", () => {
  assert.deepEqual(wordsOf(parse('a "long phrase" -b from:c')), ["a long phrase", "long phrase", "a"]);
});

test("the record is asked for what its index knows; the rest is sifted", () => {
  const query = parse('payments "not found" -draft from:web in:plans has:code');
  const spell = (name) => ({ web: "Web", "#plans": "#Plans" })[name] ?? name;
  assert.deepEqual(recordOf(query, spell), { q: 'payments "not found" -draft', sender: "Web", scope: "#Plans" });
  const sift = siftOf(query);
  assert.deepEqual([sift.wanted, sift.unwanted], [[], []]);
  assert.ok(isFound(said("`x`", { sender: "Web", recipient: "#plans" }), sift) && !isFound(said("x", { sender: "Web", recipient: "#plans" }), sift));
  assert.deepEqual(recordOf(parse("from:operator in:everyone")), { q: "", sender: "human", scope: "all" });
  assert.deepEqual(recordOf(parse("-draft")).q, "", "the index wants a word");
  assert.deepEqual(siftOf(parse("-draft")).unwanted, ["draft"]);
});
