// Forms: what agents ask the operator, a wizard for each: one card a question, a recap, then submit or reject.
// A form's inputs are made once and live until it is settled, so nothing that is typed is lost to a frame from the hub; nor
// to a reload. One that is settled elsewhere keeps its place, and can be used no more, until the hands have left it.

import { complaintOf, givenOf, wordsOfAnswer } from "./answers.js";
import { announce, button, copyAndTell, el, emptyNote, icon, keyed, nameTag, setText } from "./dom.js";
import { draftOf, keepDraft } from "./drafts.js";
import { ageText, hueOf, isOpen, isOperator } from "./model.js";
import { drawLine } from "./markdown.js";
import { clockOf, pref } from "./prefs.js";
import { widen, widener } from "./wide.js";

const REASON_MAX = 280; // as the hub takes it
const LEFT_MS = 6_000; // so long a form that was settled elsewhere stays after the last hand has left it
const TWICE_MS = 500; // an Enter that comes so soon after the focus has moved by itself was meant for what was there before

let movedAt = -Infinity; // when the focus moved by itself
let sent = null; // id of the form that this page has answered last, until it is settled

const views = new WeakMap();
const parts = new WeakMap(); // form card -> its wizard, and the nodes that change

export function render(root, model, send, now, seat) {
  const view = views.get(root) ?? open(root);
  const operator = isOperator(model);
  const isPresent = root.id === "forms" && !model.isOpening;
  view.shown = isPresent ? withSettled(view, model, seat, now) : model.forms;
  keyed(view.pending, view.shown, (form) => `${form.id} ${operator}`,
    (form) => card(form, hueOf(model, form.asker), operator, seat, root.id === "forms" ? keyOf(model, form) : null),
    (node, form) => (view.gone.has(form.id) ? close(view, node, form, model, now) : refresh(node, form, model, now)));
  keyed(view.settled, model.settled, (entry) => `${entry.id} ${pref("utc")}`, settledLine);
  goOn(root, model);
  view.settledBox.hidden = model.settled.length === 0;
  view.empty.hidden = view.shown.length > 0;
  setText(view.counter, model.forms.length ? `${model.forms.length} waiting` : "");
  view.counter.classList.toggle("calls", model.forms.length > 0);
}

/** Bring a form into view, wide if it is long, with the focus on its question. */
export function reveal(root, id) {
  const node = [...root.querySelectorAll(".form:not([data-gone])")].find((one) => id === undefined || one.dataset.form === id);
  if (node) widen(node, true);
  node?.scrollIntoView({ block: "nearest" });
  if (node && parts.get(node).wizard) parts.get(node).wizard.focus();
  return Boolean(node);
}

/** When the form that was just sent is gone, and the focus with it, go to the next one, or to the title: never to the page. */
function goOn(root, model) {
  if (sent === null || model.forms.some((form) => form.id === sent)) return;
  sent = null;
  movedAt = performance.now();
  if (document.activeElement === document.body && !reveal(root)) document.getElementById("forms-title").focus();
}

function open(root) {
  const view = { shown: [], gone: new Map(), // forms that are on the page; of those what was settled elsewhere: id -> when a hand was last on it, ms
    pending: el("ul", { class: "cards" }), settled: el("ul", { class: "settled" }), counter: document.getElementById("forms-count"),
    empty: emptyNote("Nothing waits for an answer.") };
  view.settledBox = el("div", { class: "settled-box" }, el("h3", {}, "Settled"), view.settled);
  root.append(view.empty, view.pending, view.settledBox);
  views.set(root, view);
  return view;
}

// ---- settled elsewhere ------------------------------------------------------------------------------------------

/** The forms that wait, and in their places those that another hand has settled under this one's. */
function withSettled(view, model, seat, now) {
  const pending = new Map(model.forms.map((form) => [form.id, form]));
  const kept = view.shown.filter((form) => {
    if (pending.has(form.id)) view.gone.delete(form.id);
    else keepDraft(keyOf(model, form), null);
    if (!pending.has(form.id) && isOperator(model) && !view.gone.has(form.id) && !isOwn(seat, form)) view.gone.set(form.id, now);
    return pending.has(form.id) || view.gone.has(form.id);
  });
  for (const [id, at] of view.gone) if (now - at > LEFT_MS) view.gone.delete(id);
  const here = new Set(kept.map((form) => form.id));
  return [...kept.filter((form) => pending.has(form.id) || view.gone.has(form.id)), ...model.forms.filter((form) => !here.has(form.id))];
}

const keyOf = (model, form) => `form ${model.room} ${form.id}`; // another room may give the same id

/** Whether this page has settled it. */
const isOwn = (seat, form) => seat.deeds.list.some((deed) => deed.form === form.id || deed.frame.cancel_forms === form.asker);

/** Make a card inert, once, and say what became of it; its time counts from when the last hand has left it. */
function close(view, node, form, model, now) {
  const part = parts.get(node);
  if (node.matches(":hover") || node.contains(document.activeElement)) view.gone.set(form.id, now);
  if (part.line) return;
  const hadFocus = node.contains(document.activeElement);
  const words = goneText(model.settled.find((entry) => entry.id === form.id));
  const own = part.wizard?.words() ?? "";
  part.line = el("p", { class: "gone-line", tabindex: "-1" }, icon("check"), el("span", { dir: "auto" }, words));
  node.dataset.gone = "";
  if (part.wizard) part.wizard.node.inert = true;
  part.all.hidden = true;
  node.append(part.line, el("div", { class: "form-buttons" },
    own && button("Copy what you had written", "copy", { class: "quiet", onclick: () => copyAndTell(own, "what you had written") }),
    button("Dismiss", "close", { class: "gone-dismiss", onclick: () => { view.gone.delete(form.id); view.shown = view.shown.filter((one) => one !== form); node.remove(); document.getElementById("forms-title").focus(); } })));
  announce(words);
  if (hadFocus) part.line.focus({ preventScroll: true });
}

function goneText(entry) {
  if (!entry) return "Nobody waits for this any more.";
  if (entry.status === "withdrawn") return "Withdrawn: its asker is gone.";
  if (entry.status === "cancelled") return `Rejected by the operator on another console${entry.reason ? `: ${entry.reason}` : "."}`;
  const answers = entry.answers.map(([label, text]) => `${label}: ${text}`).join("; ");
  return `Answered by the operator on another console${answers ? `: ${answers}` : "."}`;
}

// ---- a pending form ---------------------------------------------------------------------------------------------

function card(form, hue, operator, seat, key) {
  const part = { age: el("span", { class: "facts" }), wizard: operator ? wizard(form, seat, key) : null, line: null };
  part.all = operator && button("", null, { class: "reject-all quiet", hidden: true, title: `Settle all that ${form.asker} asks without an answer`,
    onclick: () => seat.act({ cancel_forms: form.asker }) });
  const whole = form.to === "all" ? "the whole room" : form.to;
  const isPrompt = form.to === "human"; // of the asker's host: no peer can ask the operator alone
  const node = el("li", { class: "card form", data: { form: form.id } },
    el("h3", { class: "form-title", dir: "auto" }, drawLine(form.title)),
    el("p", { class: "asker" }, ...(isPrompt ? ["a permission prompt of ", nameTag(form.asker, hue)] : ["asked by ", nameTag(form.asker, hue), " for ", el("bdi", {}, whole)]),
      " · ", part.age, " ", part.all, " ", widener(form)),
    isPrompt && el("pre", { class: "prompt-detail", tabindex: "0", "aria-label": "What the tool would do, word for word" }, visible(form.detail)),
    part.wizard ? part.wizard.node : [form.fields.map(readOnly), el("p", { class: "facts" }, "Waits for the operator's answer.")]);
  parts.set(node, part);
  return node;
}

/** A text as it is, but for what nobody would see, or would take for a space: that stands there as an escape. */
const UNSEEN = /(?![\n\t])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\p{Cs}]|(?! )\p{Zs}|[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00-\ufe0f]/gu;
const visible = (text) => text.replace(UNSEEN, (sign) => `\\u{${sign.codePointAt(0).toString(16)}}`);

function refresh(node, form, model, now) {
  const part = parts.get(node);
  setText(part.age, `${ageText(now / 1000 - form.ts)} ago`);
  if (!part.wizard) return;
  const asked = model.forms.filter((one) => one.asker === form.asker);
  part.all.hidden = asked.length < 2 || asked[0].id !== form.id; // once for each asker, at its first
  part.all.disabled = !isOpen(model);
  setText(part.all, `Reject all ${asked.length} of ${form.asker}`);
  part.wizard.wait(model.waiting.has(form.id), isOpen(model));
  const refusal = model.refusals.get(form.id) ?? null;
  if (part.shownRefusal === refusal) return;
  part.shownRefusal = refusal;
  part.wizard.complain(refusal);
}

const labelOf = (field) => el("bdi", {}, drawLine(field.label));

/** What an observer sees of a field: the question and its choices, nothing to press. */
function readOnly(field) {
  const options = [...(field.options ?? []), ...(field.allow_other ? ["another answer"] : [])];
  return el("div", { class: "field", data: { field: field.key } }, el("p", { class: "field-label" }, labelOf(field), required(field)),
    options.length > 0 && el("ul", { class: "names" }, options.map((option) => el("li", {}, el("bdi", {}, drawLine(option))))));
}

// ---- the wizard -------------------------------------------------------------------------------------------------
// Steps: one for each field, then the recap; a form of one field needs no recap, its answer stands there. "reject" is a step aside.

function wizard(form, seat, key) {
  const fields = form.fields.map((field, index) => question(field, `form-${form.id}-${index}`));
  const single = fields.length === 1;
  const steps = single ? [...fields] : [...fields, recap(form, fields, (index) => show(index))];
  const reject = rejection(form);
  const at = { step: 0, waits: false, isLineOpen: true };
  const nodes = {
    count: el("p", { class: "facts step-count", "aria-live": "polite" }),
    body: el("div", { class: "steps" }),
    refusal: el("p", { class: "refusal", role: "alert", hidden: true }),
    rejectOpen: button("Reject…", null, { class: "reject-open quiet", title: "Settle it without an answer", onclick: () => show("reject") }),
    back: button("Back", "back", { class: "form-back", onclick: () => show(at.step === "reject" ? at.before : at.step - 1) }),
    next: el("button", { type: "submit", class: "form-next strong" }, "Next"),
    submit: el("button", { type: "submit", class: "submit-form strong", title: "Send the answer" }, "Send"),
    reject: el("button", { type: "submit", class: "reject-form strong", data: { tone: "danger" } }, "Reject"),
  };
  const node = el("form", { class: "form-body", "aria-label": form.title, novalidate: true, autocomplete: "off",
    onsubmit: (event) => { event.preventDefault(); go(); },
    oninput: keep, onchange: keep,
    onkeydown: (event) => {
      if (event.key !== "Enter" || event.isComposing || event.keyCode === 229) return;
      if (event.repeat || performance.now() - movedAt < TWICE_MS) event.preventDefault();
      else if (event.ctrlKey || event.metaKey) { event.preventDefault(); go(); }
    } },
  nodes.count, nodes.body, nodes.refusal,
  el("div", { class: "form-buttons" }, nodes.rejectOpen, el("span", { class: "spring" }), nodes.back, nodes.next, nodes.submit, nodes.reject));
  nodes.body.append(...steps.map((step) => step.node), reject.node);
  const draft = key && draftOf(key);
  if (draft) {
    fields.forEach((field, index) => field.take(draft.values?.[index]));
    reject.take(draft.reason);
  }
  const isStep = (step) => step === "reject" || (Number.isInteger(step) && step >= 0 && step < steps.length);
  at.before = isStep(draft?.before) ? draft.before : 0;
  show(isStep(draft?.step) ? draft.step : 0, false, at.before);

  /** What stands in it, so that a reload finds it again. */
  function keep() {
    if (key) keepDraft(key, { step: at.step, before: at.before, values: fields.map((field) => field.give()), reason: reject.give() });
  }

  function show(step, focuses = true, before = at.step) {
    if (step === "reject") at.before = before;
    at.step = step;
    const current = step === "reject" ? reject : steps[step];
    for (const one of [...steps, reject]) one.node.hidden = one !== current;
    current.fill?.();
    const isLast = step === steps.length - 1;
    setText(nodes.count, step === "reject" ? "Reject this form" : single ? "" : isLast ? "Recap" : `Question ${step + 1} of ${fields.length}`);
    nodes.count.hidden = nodes.count.textContent === "";
    nodes.rejectOpen.hidden = step === "reject";
    nodes.back.hidden = step === 0;
    nodes.next.hidden = step === "reject" || isLast;
    nodes.submit.hidden = !(step !== "reject" && isLast);
    nodes.reject.hidden = step !== "reject";
    if (!focuses) return;
    keep();
    current.focus();
  }

  function settle(deed) {
    sent = form.id;
    seat.act(deed);
  }

  function go() {
    if (at.waits) return;
    if (at.step === "reject") return settle({ cancel_form: form.id, ...(reject.value() && { reason: reject.value() }) });
    const isField = at.step < fields.length;
    if (isField && !fields[at.step].isGood()) return fields[at.step].focus();
    if (at.step < steps.length - 1) return show(at.step + 1);
    const bad = fields.findIndex((field) => !field.isGood());
    if (bad >= 0) return show(bad);
    if (at.isLineOpen) settle({ answer: { id: form.id, answers: givenOf(form.fields, fields.map((field) => field.value())) } });
  }

  return {
    node,
    words: () => [...fields.map((field) => [field.value()].flat().join(", ")), reject.value()].filter(Boolean).join("\n"),
    focus: () => (at.step === "reject" ? reject : steps[at.step]).focus(),
    wait(waits, isLineOpen) {
      Object.assign(at, { waits, isLineOpen });
      nodes.submit.disabled = nodes.reject.disabled = waits || !isLineOpen;
      setText(nodes.submit, waits ? "Asked…" : "Send");
      setText(nodes.reject, waits ? "Asked…" : "Reject");
    },
    complain(refusal) {
      const index = form.fields.findIndex((field) => field.key === refusal?.field);
      fields.forEach((field, one) => field.complain(one === index ? refusal.text : ""));
      nodes.refusal.hidden = refusal === null || index >= 0;
      setText(nodes.refusal, nodes.refusal.hidden ? "" : refusal.text);
      if (index >= 0) show(index);
    },
  };
}

function recap(form, fields, show) {
  const list = el("dl", { class: "recap" });
  const heading = el("p", { class: "field-label", tabindex: "-1" }, "This goes to the hub:");
  return {
    node: el("div", { class: "field" }, heading, list),
    focus: () => heading.focus(),
    fill: () => list.replaceChildren(...form.fields.map((field, index) => el("div", {},
      el("dt", {}, labelOf(field)),
      el("dd", { dir: "auto", class: wordsOfAnswer(fields[index].value()) === "no answer" ? "none" : "" }, wordsOfAnswer(fields[index].value())),
      button(`Change: ${field.label}`, "form", { class: "change", onclick: () => show(index) }, true)))),
  };
}

function rejection(form) {
  const id = `form-${form.id}-reason`;
  const control = el("textarea", { id, rows: "3", dir: "auto", maxlength: String(REASON_MAX), class: "reason" });
  return {
    node: el("div", { class: "field" }, el("label", { class: "field-label", for: id }, "Why? ", el("span", { class: "required" }, "optional")), control,
      el("p", { class: "facts" }, `${form.asker} is told that you will not answer, and why. The form is settled; what you have entered is not sent.`)),
    value: () => control.value.trim(),
    give: () => control.value,
    take: (text) => { if (typeof text === "string") control.value = text; },
    focus: () => control.focus(),
  };
}

// ---- one field --------------------------------------------------------------------------------------------------
// A question is {node, value(), isGood(), complain(text), focus(), give(), take(given)}: as it stands now, to be kept.

const INPUTS = { text: lineInput, textarea: lineInput, radio: choiceInput, checkbox: choiceInput };

function question(field, id) {
  const complaint = el("p", { class: "refusal", id: `${id}-refusal`, hidden: true });
  const input = (INPUTS[field.type] ?? lineInput)(field, id, complaint);
  const one = {
    node: input.node,
    value: input.value,
    give: input.give,
    take: input.take,
    focus: () => (input.controls.find((control) => control.checked) ?? input.controls[0]).focus(),
    isGood() {
      const text = input.check?.() || complaintOf(field, input.value());
      one.complain(text);
      return text === "";
    },
    complain(text) {
      setText(complaint, text);
      complaint.hidden = text === "";
      for (const control of input.controls) {
        if (text) control.setAttribute("aria-invalid", "true");
        else control.removeAttribute("aria-invalid");
      }
    },
  };
  return one;
}

const required = (field) => field.required && el("span", { class: "required" }, "required");

function lineInput(field, id, complaint) {
  const long = field.type === "textarea";
  const control = el(long ? "textarea" : "input", { id, name: field.key, dir: "auto", "aria-describedby": complaint.id,
    ...(long ? { rows: "4" } : { type: "text" }), ...(field.required && { "aria-required": "true" }) });
  return {
    node: el("div", { class: "field", data: { field: field.key } },
      el("label", { class: "field-label", for: id }, labelOf(field), required(field)), control, complaint),
    controls: [control],
    value: () => control.value.trim(),
    give: () => control.value,
    take: (text) => { if (typeof text === "string") control.value = text; },
  };
}

function choiceInput(field, id, complaint) {
  const radio = field.type === "radio";
  const choices = (field.options ?? []).map((option, index) => choice(field, `${id}-${index}`, option, el("bdi", {}, drawLine(option))));
  const other = field.allow_other ? otherChoice(field, id) : null;
  const none = radio && !field.required ? choice(field, `${id}-none`, "", el("span", { class: "facts" }, "no answer")) : null;
  if (none) none.box.checked = true;
  const all = [...choices, ...(other ? [other] : []), ...(none ? [none] : [])];
  const otherIsOn = () => other !== null && other.box.checked;
  const own = () => (otherIsOn() && other.text.value.trim() ? [other.text.value.trim()] : []);
  const picked = () => [...choices.filter((one) => one.box.checked).map((one) => one.box.value), ...own()];
  return {
    node: el("fieldset", { class: "field", data: { field: field.key }, "aria-describedby": complaint.id },
      el("legend", { class: "field-label" }, labelOf(field), required(field)), all.map((one) => one.node), complaint),
    controls: all.map((one) => one.box),
    give: () => ({ on: all.flatMap((one, index) => (one.box.checked ? [index] : [])), text: other?.text.value ?? "" }),
    take: (given) => {
      if (!Array.isArray(given?.on)) return;
      all.forEach((one, index) => { one.box.checked = given.on.includes(index); });
      if (other && typeof given.text === "string") other.text.value = given.text;
    },
    value: () => (radio ? picked()[0] ?? "" : picked()),
    check: () => (otherIsOn() && !other.text.value.trim() ? "Write your own answer, or choose another." : ""),
  };
}

function choice(field, id, value, label) {
  const box = el("input", { type: field.type, id, name: `${id.slice(0, id.lastIndexOf("-"))}`, value });
  return { box, node: el("label", { class: "choice", for: id }, box, label) };
}

function otherChoice(field, id) {
  const one = choice(field, `${id}-other`, "", el("span", {}, "Other:"));
  one.text = el("input", { type: "text", class: "other-text", dir: "auto", "aria-label": `Other answer to ${field.label}`,
    oninput: () => { if (one.text.value) one.box.checked = true; } });
  one.box.addEventListener("change", () => { if (one.box.checked) one.text.focus(); });
  one.node = el("div", { class: "other" }, one.node, one.text);
  return one;
}

// ---- settled ----------------------------------------------------------------------------------------------------

function settledLine(entry) {
  const outcome = { cancelled: "rejected", withdrawn: "withdrawn: its asker is gone" }[entry.status] ?? "answered";
  return el("li", { data: { settled: entry.id, status: entry.status } }, icon(entry.status === "answered" ? "check" : "close"),
    el("div", {},
      el("p", { dir: "auto" }, el("span", { class: "settled-title" }, drawLine(entry.title)), ` · ${outcome}`),
      entry.answers.map(([label, text]) => el("p", { class: "facts", dir: "auto" }, drawLine(label ? `${label}: ${text}` : text))),
      entry.reason && el("p", { class: "facts", dir: "auto" }, "Reason: ", drawLine(entry.reason)),
      el("p", { class: "facts" }, entry.asker && ["asked by ", el("bdi", {}, entry.asker), " · "],
        entry.at ? el("time", { datetime: new Date(entry.at).toISOString() }, clockOf(entry.at)) : "")));
}
