// Budgets: what the room and its agents may spend, what they have spent, and who is held for it; as a table and as text.

import { button, el, emptyNote, keyed, nameTag, setAttribute, setText } from "./dom.js";
import { waiting, wordsOf } from "./deeds.js";
import { hueOf, isOpen, isOperator } from "./model.js";
import { keyOf, kindOf, levelText, limitText, share, spentText } from "./spent.js";

const EXAMPLE = "room: 500 messages/h, $5; *: 100k tokens; reviewer: 20k characters/h";

const views = new WeakMap();

/** Open the dialog, at a row if one is named. */
export function show(root, of = null) {
  if (!root.open) root.showModal();
  const view = views.get(root);
  if (view) view.opensAt = of;
  else root.dataset.opensAt = of ?? "";
}

export function render(root, model, send, now, seat) {
  if (!root.open) return;
  const view = views.get(root) ?? open(root);
  Object.assign(view, { model, seat, may: isOperator(model) && isOpen(model) });
  const { text, rows, more } = model.budgets;
  if (!view.isDirty && view.shown !== text) view.text.value = view.shown = text;
  view.text.readOnly = !isOperator(model);
  view.buttons.hidden = !isOperator(model);
  view.none.hidden = rows.length > 0;
  view.table.hidden = rows.length === 0;
  keyed(view.body, rows, (row) => `${keyOf(row)}\n${view.may}`, (row) => line(row, view), (node, row) => refresh(node, row, view, now));
  setText(view.more, more ? `${more.toLocaleString("en")} more are further from their limits.` : "");
  view.save.disabled = !view.may || !view.isDirty || waiting(seat.deeds, "budgets") !== null;
  view.undo.disabled = !view.isDirty;
  const deed = seat.deeds.list.find((one) => ["budgets", "raise_budget", "end_spender"].includes(one.command));
  if (deed?.command === "budgets" && deed.state === "effective" && view.asked !== deed.n) Object.assign(view, { asked: deed.n, isDirty: false, shown: null });
  setText(view.deed, deed ? `${deed.word}: ${wordsOf(deed, now)}` : "");
  if (view.opensAt !== null) pointOut(view);
}

function open(root) {
  const view = { isDirty: false, shown: null, asked: 0, opensAt: root.dataset.opensAt || null, body: el("tbody"), more: el("p", { class: "facts" }),
    none: emptyNote("No budgets are set: nobody is held for what it spends."), deed: el("p", { class: "facts", role: "status" }) };
  view.text = el("textarea", { id: "budgets-text", rows: "3", spellcheck: "false", dir: "auto", "aria-describedby": "budgets-how", placeholder: EXAMPLE,
    oninput: () => { view.isDirty = view.text.value !== view.model.budgets.text; view.seat.go(); } });
  view.save = button("Save the budgets", "check", { class: "strong", onclick: () => view.seat.act({ budgets: view.text.value }) });
  view.undo = button("Take back", null, { class: "quiet", onclick: () => { Object.assign(view, { isDirty: false, shown: null }); view.seat.go(); } });
  view.buttons = el("div", { class: "rules-buttons" }, view.save, view.undo);
  view.table = el("table", { class: "budgets" }, el("caption", { class: "unseen" }, "What was spent, of how much"),
    el("thead", {}, el("tr", {}, ["Who", "Spent", "How it stands"].map((word) => el("th", { scope: "col" }, word)))), view.body);
  root.append(
    el("h2", { id: "budgets-title", tabindex: "-1", autofocus: true }, "Budgets"),
    el("p", { class: "facts" }, "At 80 % an agent is told, and so are you. At 100 % it is paused, and what it says waits, until you raise its budget or end it; of an hour, also until it has room again. Your own words never count."),
    view.none, view.table, view.more,
    el("label", { class: "field-label", for: "budgets-text" }, "As text"), view.text,
    el("p", { class: "facts", id: "budgets-how" }, `For the room, for each agent (*), or for one by its name: messages, characters, wakes, tokens or $, in all or an hour (/h). For example: ${EXAMPLE}`),
    view.buttons, view.deed,
    el("div", { class: "dialog-buttons" }, el("button", { type: "button", class: "strong", onclick: () => root.close() }, "Close")));
  views.set(root, view);
  return view;
}

function pointOut(view) {
  const row = [...view.body.children].find((one) => one.dataset.key === view.opensAt);
  row?.scrollIntoView({ block: "nearest" });
  row?.querySelector("button")?.focus();
  view.opensAt = null;
}

const parts = new WeakMap(); // row -> the nodes that change

function line(row, view) {
  const part = { row, spent: el("span"), level: el("span", { class: "budget-level" }), acts: el("div", { class: "budget-acts" }),
    bar: el("meter", { min: "0", max: "1", low: "0.8", high: "0.99", optimum: "0" }) };
  const who = row.name === null ? "The room" : nameTag(row.name, hueOf(view.model, row.name));
  const act = (frame) => view.seat.act(frame);
  const raiseTo = (to) => act({ raise_budget: { spender: part.row.spender, measure: part.row.measure, to } });
  part.to = el("input", { type: "number", min: "0", step: kindOf(row) === "dollars" ? "0.01" : "1", "aria-label": `Raise ${row.spender} to, ${row.measure}` });
  part.double = button("Double", null, { class: "quiet budget-double", onclick: () => raiseTo(doubled(part.row)) });
  part.raise = button("Raise to this", null, { class: "quiet budget-raise", onclick: () => { if (part.to.valueAsNumber > 0) raiseTo(part.to.valueAsNumber); } });
  part.end = row.name === null ? button("Stop all", "stop", { class: "quiet budget-end", onclick: () => act({ action: "stop" }) })
    : button("End it", "kick", { class: "quiet budget-end", onclick: () => act({ end_spender: part.row.spender }) });
  part.acts.append(part.double, part.to, part.raise, part.end);
  const node = el("tr", { data: { key: keyOf(row) } }, el("th", { scope: "row" }, who), el("td", {}, part.bar, part.spent), el("td", {}, part.level, view.may && part.acts));
  parts.set(node, part);
  return node;
}

/** Twice as much as the limit, or as what was spent beyond it. */
const doubled = (row) => 2 * (kindOf(row) === "dollars" ? Math.max(row.limit, row.spent) : Math.max(row.limit, Math.ceil(row.spent)));

function refresh(node, row, view, now) {
  const part = parts.get(node);
  part.row = row;
  node.dataset.level = row.level;
  part.bar.value = share(row);
  setAttribute(part.bar, "aria-label", `${row.spender}: ${levelText(row, now)}`);
  part.bar.hidden = Boolean(row.unknown) && !row.spent;
  setText(part.spent, spentText(row));
  setText(part.level, levelText(row, now) + (row.waiting ? `; ${row.waiting} of its messages wait` : ""));
  part.acts.hidden = row.level === "fine";
  part.end.hidden = row.level !== "spent";
  part.double.title = `Raise ${limitText(row)} to ${doubled(row).toLocaleString("en")}`;
}
