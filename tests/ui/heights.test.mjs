// Where rows lie. Run: node --test tests/ui/
import test from "node:test";
import assert from "node:assert/strict";
import { Heights } from "../../ui/heights.js";

function filled(list) {
  const heights = new Heights();
  for (const height of list) heights.push(height);
  return heights;
}
const sum = (list) => list.reduce((total, height) => total + height, 0);

test("sums and places agree with the plain list, whatever was pushed, set, cut and dropped", () => {
  let seed = 7;
  const dice = (sides) => { seed = (seed * 1103515245 + 12345) % 2147483648; return seed % sides; };
  const heights = new Heights();
  let list = [];
  for (let turn = 0; turn < 3000; turn += 1) {
    const what = dice(20);
    if (what < 15 || list.length === 0) { const height = 1 + dice(90); heights.push(height); list.push(height); }
    else if (what < 18) { const at = dice(list.length); heights.set(at, 5); list[at] = 5; }
    else if (what === 18) { const size = list.length - dice(Math.min(9, list.length)); heights.truncate(size); list = list.slice(0, size); }
    else { const count = dice(Math.min(5, list.length)); heights.splice(0, count); list = list.slice(count); }
    if (turn % 100) continue;
    assert.equal(heights.size, list.length);
    assert.equal(heights.total, sum(list));
    for (let n = 0; n < 10 && list.length; n += 1) {
      const at = dice(list.length);
      const top = sum(list.slice(0, at));
      assert.equal(heights.top(at), top);
      assert.equal(heights.at(top), at);
      assert.equal(heights.at(top + list[at] - 0.5), at);
    }
  }
});

test("a place outside is the first or the last row", () => {
  const heights = filled([10, 20, 30]);
  assert.equal(heights.at(-5), 0);
  assert.equal(heights.at(1000), 2);
  assert.equal(heights.top(3), 60);
});
