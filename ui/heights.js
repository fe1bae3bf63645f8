// Heights: how tall each row is, and so where each one lies. Pure. Sums are kept per block, so that a row among twenty
// thousand is found in some hundred steps and a changed height costs two.

const BLOCK = 64;

export class Heights {
  constructor() {
    this.list = [];
    this.blocks = []; // the sum of each BLOCK rows
  }

  get size() {
    return this.list.length;
  }

  get total() {
    return this.blocks.reduce((sum, block) => sum + block, 0);
  }

  push(height) {
    if (this.list.length % BLOCK === 0) this.blocks.push(0);
    this.list.push(height);
    this.blocks[this.blocks.length - 1] += height;
  }

  set(index, height) {
    this.blocks[Math.floor(index / BLOCK)] += height - this.list[index];
    this.list[index] = height;
  }

  /** Keep the first `size` rows. */
  truncate(size) {
    if (size < this.list.length) this.refill(this.list.slice(0, size));
  }

  /** Put `heights` in place of `count` rows. */
  splice(from, count, heights = []) {
    if (count > 0 || heights.length) this.refill([...this.list.slice(0, from), ...heights, ...this.list.slice(from + count)]);
  }

  refill(list) {
    this.list = [];
    this.blocks = [];
    for (const height of list) this.push(height);
  }

  /** Where row `index` begins. */
  top(index) {
    const block = Math.floor(index / BLOCK);
    let sum = 0;
    for (let n = 0; n < block; n += 1) sum += this.blocks[n];
    for (let n = block * BLOCK; n < index; n += 1) sum += this.list[n];
    return sum;
  }

  /** The row at the place `y`; the first or the last when `y` is outside. */
  at(y) {
    let [sum, block] = [0, 0];
    while (block < this.blocks.length - 1 && sum + this.blocks[block] <= y) sum += this.blocks[block++];
    let index = block * BLOCK;
    while (index < this.list.length - 1 && sum + this.list[index] <= y) sum += this.list[index++];
    return index;
  }
}
