// The marks of one line. Run: node --test tests/ui/
import test from "node:test";
import assert from "node:assert/strict";
import { inlineOf } from "../../ui/inline.js";

/** A short way to write tokens: code `x`, emphasis {em}, strong {b}, strikethrough {del}, a link {a, to}. */
const NAMES = { emphasis: "em", strong: "b", strikethrough: "del", link: "a" };
const shortOf = (tokens) => tokens.map(({ type, raw, children, attrs }) => {
  if (type === "text") return raw;
  if (type === "codespan") return { code: raw };
  return { [NAMES[type]]: shortOf(children), ...(attrs && { to: attrs.url }) };
});
const read = (text, hasLinks) => shortOf(inlineOf(text, hasLinks));

test("code, emphasis, strong and struck words are read", () => {
  assert.deepEqual(read("run `npm ci` *now*, **not** ~~later~~"),
    ["run ", { code: "npm ci" }, " ", { em: ["now"] }, ", ", { b: ["not"] }, " ", { del: ["later"] }]);
  assert.deepEqual(read("_one_ __two__"), [{ em: ["one"] }, " ", { b: ["two"] }]);
  assert.deepEqual(read("``a`b``"), [{ code: "a`b" }]);
  assert.deepEqual(read("`` `x` ``"), [{ code: "`x`" }]);
  assert.deepEqual(read("***both***"), [{ b: [{ em: ["both"] }] }]);
  assert.deepEqual(read("*a **b** c*"), [{ em: ["a ", { b: ["b"] }, " c"] }]);
  assert.deepEqual(read("**`x**y`**"), [{ b: [{ code: "x**y" }] }]);
});

test("what is no mark stays as it is", () => {
  for (const text of ["plain", "2 * 3 * 4", "snake_case_name", "a ` lone", "**open", "*", "~/src and ~~", "[x]", "[ ](", "#plans", "1. one", "- x", "> q", "<b>bold</b>", "![", "a\\b", "\\"]) {
    assert.equal(inlineOf(text).map(({ type, raw }) => (type === "text" ? raw : `{${type}}`)).join(""), text);
  }
  assert.deepEqual(read("\\*not\\* `c\\`"), ["*", "not", "*", " ", { code: "c\\" }]);
});

test("links are read with where they go, and not within links or where none may be", () => {
  assert.deepEqual(read("see [the *docs*](https://docs.example/a_(b)) now"), ["see ", { a: ["the ", { em: ["docs"] }], to: "https://docs.example/a_(b)" }, " now"]);
  assert.deepEqual(read("at https://x.example/a_b_c?d=*e*."), ["at ", { a: ["https://x.example/a_b_c?d=*e"], to: "https://x.example/a_b_c?d=*e" }, "*."]);
  assert.deepEqual(read("<mailto:a@b.example>"), [{ a: ["mailto:a@b.example"], to: "mailto:a@b.example" }]);
  assert.deepEqual(read("[x](javascript:alert(1))"), [{ a: ["x"], to: "javascript:alert(1)" }], "whether it may be opened, who draws it decides");
  assert.deepEqual(read("[https://a.example](https://b.example)"), [{ a: ["https://a.example"], to: "https://b.example" }]);
  assert.deepEqual(read("![p](https://x.example/p.png)"), ["!", { a: ["p"], to: "https://x.example/p.png" }], "there are no images");
  assert.deepEqual(read("[x](https://b.example) `c`", false), ["[x](https://b.example) ", { code: "c" }]);
});

test("all of a text stays in, in its order, and no text takes long", () => {
  const LONGEST = 2_000;
  for (const part of ["*a ", "**a ", "`", "`a", "[", "[a](", "_a", "~~a", "\\*", "*`", "***", "<http://", "[a](b(", "* a*", "*`a`"]) {
    const text = part.repeat(LONGEST / part.length);
    const start = performance.now();
    const words = (tokens) => tokens.map(({ raw, children }) => raw ?? words(children)).join("");
    assert.equal(words(inlineOf(text)).replaceAll(/[^a]/g, ""), text.replaceAll(/[^a]/g, ""), part);
    assert.ok(performance.now() - start < 200, `${part}: ${performance.now() - start} ms`);
  }
  assert.deepEqual(read("*a*".repeat(LONGEST)), ["*a*".repeat(LONGEST)], "what is no line is left alone");
});
