// Which forms are long. Run: node --test tests/ui/
import test from "node:test";
import assert from "node:assert/strict";
import { isLong } from "../../ui/wide.js";

test("a form is long by all that is to be read of it: title, detail, labels and options", () => {
  const field = { label: "Which?", options: ["now", "later"] };
  assert.ok(!isLong({ title: "Deploy?", fields: [field, { label: "Why?" }] }));
  assert.ok(isLong({ title: "Deploy?", fields: [field, { label: "L".repeat(500) }] }));
  assert.ok(isLong({ title: "Deploy?", fields: [{ label: "Which?", options: ["a".repeat(260), "b".repeat(260)] }] }));
  assert.ok(isLong({ title: "Run it?", detail: "rm ".repeat(200), fields: [field] }));
});
