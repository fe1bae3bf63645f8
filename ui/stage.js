// Stage: the agents that this hub may start, a card for each: how it is, what it costs, what may be asked of it, and the last
// lines that it wrote, which are asked for while they are shown.

import { button, el, emptyNote, keyed, nameTag, setAttribute, setText } from "./dom.js";
import { factsText, rulesOf, RUNNING, stateText } from "./cast.js";
import { shownState, wordsOf } from "./deeds.js";
import { hueOf, isOpen, isOperator } from "./model.js";

const ASK_MS = 1_000; // between two questions for the lines of one agent

const views = new WeakMap();
const parts = new WeakMap(); // card -> the nodes that change

export function render(root, model, send, now, seat) {
  const { off, agents } = model.stage;
  const panel = root.closest(".panel");
  panel.hidden = off === null; // of the past, and of an older hub, nothing is known
  panel.classList.toggle("is-off", Boolean(off)); // then it stands last: there is nothing to do
  if (off === null) return;
  const view = views.get(root) ?? open(root);
  Object.assign(view, { model, seat, now });
  setText(view.off, off && `Off: ${off}.`);
  view.off.hidden = !off;
  const running = agents.filter(({ state }) => RUNNING.has(state)).length;
  setText(view.counter, off ? "" : `${running} of ${agents.length} run`);
  keyed(view.list, agents, ({ name }) => `${name} ${isOperator(model)}`, (row) => card(row, view), (node, row) => refresh(node, row, view));
}

/** Bring an agent's card into view, with the focus on what can be asked of it. */
export function reveal(root, name) {
  const node = [...root.querySelectorAll(".staged")].find((one) => one.dataset.agent === name);
  node?.scrollIntoView({ block: "nearest" });
  (node?.querySelector('.stage-acts button:not([aria-disabled="true"])') ?? document.getElementById("stage-title")).focus();
}

function open(root) {
  const view = { list: el("ul", { class: "cards" }), off: emptyNote(""), counter: document.getElementById("stage-count"), shown: new Set() }; // names whose lines are shown
  root.append(view.off, view.list);
  views.set(root, view);
  return view;
}

function card({ name }, view) {
  const operator = isOperator(view.model);
  const part = { state: el("span", { class: "stage-state" }), why: el("p", { class: "stage-why", dir: "auto" }), facts: el("p", { class: "facts" }),
    deed: el("p", { class: "facts deed", role: "status" }), askedAt: 0, asked: -1,
    runs: el("dl", { class: "facts stage-runs" }), gone: el("p", { class: "facts" }), lines: el("pre", { class: "stage-lines", dir: "auto", tabindex: "0", role: "region", "aria-label": `What ${name} wrote last` }) };
  part.acts = operator ? rulesOf(view.model, { name, state: "" }).map(({ verb, word, icon }) => button(word, icon, { data: { verb },
    onclick: ({ currentTarget }) => currentTarget.getAttribute("aria-disabled") !== "true" && view.seat.act(currentTarget.frame) }, verb !== "start")) : [];
  part.output = operator && button("Output", null, { class: "quiet stage-output", "aria-expanded": "false", onclick: () => {
    view.shown[view.shown.has(name) ? "delete" : "add"](name);
    view.seat.go();
  } });
  part.box = el("div", { class: "stage-box", hidden: true }, part.runs, part.gone, part.lines);
  const node = el("li", { class: "card staged", data: { agent: name } },
    el("div", { class: "card-head" }, nameTag(name, hueOf(view.model, name)), part.state), part.why, part.facts,
    operator && el("div", { class: "stage-acts", role: "group", "aria-label": `Rule ${name}` }, part.acts, part.output), operator && part.deed, part.box);
  parts.set(node, part);
  return node;
}

function refresh(node, row, view) {
  const { model, seat, now } = view;
  const part = parts.get(node);
  node.dataset.state = row.state;
  setText(part.state, stateText(row, now));
  setText(part.why, row.why);
  part.why.hidden = !row.why;
  setText(part.facts, factsText(row));
  if (!isOperator(model)) return;
  const deed = seat.deeds.list.find((one) => one.staged === row.name || (one.command === "command" && one.subject === row.name));
  const isAsked = deed?.state === "asked";
  for (const [at, { frame, word, why }] of rulesOf(model, row).entries()) {
    const control = part.acts[at];
    const reason = !isOpen(model) ? "no line to the hub" : isAsked ? "the last order is on its way" : why;
    control.frame = frame;
    setAttribute(control, "aria-disabled", String(reason !== ""));
    setAttribute(control, "aria-label", `${word} ${row.name}${reason ? `: not now, ${reason}` : ""}`);
    setAttribute(control, "title", reason ? `Not now: ${reason}` : `${word} ${row.name}`);
  }
  part.deed.dataset.state = shownState(deed, now);
  setText(part.deed, part.deed.dataset.state ? `${deed.word}: ${wordsOf(deed, now)}` : "");
  showOutput(part, row, view);
}

/** The first line that is in sight, and where it stands: lines before it may go. */
function firstInSight(box) {
  const node = [...box.children].find((one) => one.offsetTop + one.offsetHeight > box.offsetTop + box.scrollTop);
  return node && { node, offset: node.offsetTop };
}

/** Show what it wrote last, and ask for it again when there is more. */
function showOutput(part, row, view) {
  const isShown = view.shown.has(row.name);
  setAttribute(part.output, "aria-expanded", String(isShown));
  setAttribute(part.output, "aria-label", `Output of ${row.name}`);
  part.box.hidden = !isShown;
  if (!isShown) return;
  const known = view.model.outputs.get(row.name);
  if (isOpen(view.model) && known?.total !== row.output && view.now - part.askedAt >= ASK_MS && view.seat.ask({ output: row.name })) part.askedAt = view.now;
  if (part.known === known) return;
  part.known = known;
  const isAtEnd = part.lines.scrollHeight - part.lines.scrollTop - part.lines.clientHeight < 8;
  const { lines = [], total = 0, runs = "", cwd = "", rights = "" } = known ?? {};
  keyed(part.runs, Object.entries({ Runs: runs, In: cwd, May: rights }).filter(([, text]) => text), ([what]) => what,
    ([what]) => el("div", {}, el("dt", {}, what), el("dd", { dir: "auto" })), (one, [, text]) => setText(one.lastElementChild, text));
  const gone = total - lines.length;
  setText(part.gone, lines.length === 0 ? "It has written nothing." : gone > 0 ? `${gone.toLocaleString("en")} earlier lines are gone.` : "");
  const numbered = lines.map((text, at) => [gone + at, text]); // a line keeps its node: what one reads or marks stays
  const top = isAtEnd ? null : firstInSight(part.lines);
  keyed(part.lines, numbered, ([number]) => number, ([, text]) => el("div", {}, `${text}\n`));
  if (top?.node.isConnected) part.lines.scrollTop += top.node.offsetTop - top.offset;
  if (isAtEnd) part.lines.scrollTop = part.lines.scrollHeight;
}
