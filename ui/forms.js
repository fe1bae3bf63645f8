// Forms: what agents ask the operator. A form's inputs are made once and live until it is settled, so nothing that is
// typed is lost to a frame from the hub, nor to a refused answer.

import { ask, button, el, emptyNote, icon, keyed, nameTag, setText } from "./dom.js";
import { ageText, hueOf, isOpen, isOperator } from "./model.js";

const views = new WeakMap();
const parts = new WeakMap(); // form card -> the nodes that change, and its readers

export function render(root, model, send, now) {
  const view = views.get(root) ?? open(root);
  const operator = isOperator(model);
  keyed(view.pending, model.forms, (form) => `${form.id} ${operator}`, (form) => card(form, hueOf(model, form.asker), operator, send), (node, form) => refresh(node, form, model, now));
  keyed(view.settled, model.settled, (entry) => entry.id, settledLine);
  view.settledBox.hidden = model.settled.length === 0;
  view.empty.hidden = model.forms.length > 0;
  setText(view.counter, model.forms.length ? `${model.forms.length} waiting` : "");
  view.counter.classList.toggle("calls", model.forms.length > 0);
}

function open(root) {
  const view = { pending: el("ul", { class: "cards" }), settled: el("ul", { class: "settled" }), counter: document.getElementById("forms-count"),
    empty: emptyNote("Nothing waits for an answer.") };
  view.settledBox = el("div", { class: "settled-box" }, el("h3", {}, "Settled"), view.settled);
  root.append(view.empty, view.pending, view.settledBox);
  views.set(root, view);
  return view;
}

// ---- a pending form ---------------------------------------------------------------------------------------------

function card(form, hue, operator, send) {
  const fields = form.fields.map((field, index) => question(field, `form-${form.id}-${index}`, operator));
  const part = { fields, age: el("span", { class: "facts" }), refusal: el("p", { class: "refusal", role: "alert", hidden: true }) };
  const whole = form.to === "all" ? "the whole room" : form.to;
  const body = el(operator ? "form" : "div", { class: "form-body", "aria-label": form.title, ...(operator && { novalidate: true, autocomplete: "off" }) },
    el("h3", { class: "form-title", dir: "auto" }, form.title),
    el("p", { class: "asker" }, icon("form"), el("span", {}, "asked by ", nameTag(form.asker, hue), " for ", el("bdi", {}, whole)), part.age),
    fields.map((field) => field.node),
    part.refusal,
    operator ? formButtons(form, part, send) : el("p", { class: "facts" }, "Waits for the operator's answer."));
  if (operator) body.addEventListener("submit", (event) => { event.preventDefault(); submit(form, part, send); });
  const node = el("li", { class: "card form", data: { form: form.id } }, body);
  parts.set(node, part);
  return node;
}

function formButtons(form, part, send) {
  part.cancel = button("Cancel form", null, { class: "cancel-form quiet", onclick: () => cancel(form, part, send) });
  part.submit = el("button", { type: "submit", class: "submit-form strong" }, "Send answer");
  return el("div", { class: "form-buttons" }, part.cancel, part.submit);
}

function refresh(node, form, model, now) {
  const part = parts.get(node);
  setText(part.age, `${ageText(now / 1000 - form.ts)} ago`);
  if (!part.submit) return;
  const waits = model.waiting.has(form.id);
  part.submit.disabled = part.cancel.disabled = waits || !isOpen(model);
  setText(part.submit, waits ? "Sent…" : "Send answer");
  const refusal = model.refusals.get(form.id) ?? null;
  if (part.shownRefusal === refusal) return;
  part.shownRefusal = refusal;
  const asked = part.fields.find((field) => field.key === refusal?.field);
  for (const field of part.fields) field.complain(field === asked ? refusal.text : "");
  part.refusal.hidden = refusal === null || asked !== undefined;
  setText(part.refusal, part.refusal.hidden ? "" : refusal.text);
  asked?.focus();
}

function submit(form, part, send) {
  const complaints = part.fields.map((field) => field.check());
  part.fields.forEach((field, index) => field.complain(complaints[index]));
  const first = complaints.findIndex((text) => text !== "");
  if (first >= 0) return part.fields[first].focus();
  const given = part.fields.filter((field) => !field.isEmpty());
  const answers = Object.fromEntries(given.map((field) => [field.key, field.value()])); // no assignment: a key may be __proto__
  send({ answer: { id: form.id, answers } });
}

async function cancel(form, part, send) {
  const typed = part.fields.some((field) => field.isTouched());
  const yes = !typed || await ask({
    title: "Cancel this form?",
    text: `${form.asker} is told that you will not answer. What you have entered here is lost.`,
    verb: "Cancel the form",
  });
  if (yes) send({ cancel_form: form.id });
}

// ---- one field --------------------------------------------------------------------------------------------------
// A question is {key, node, value(), isEmpty(), isTouched(), check() -> complaint or "", complain(text), focus()}.

const INPUTS = { text: lineInput, textarea: lineInput, radio: choiceInput, checkbox: choiceInput };

function question(field, id, operator) {
  if (!operator) return { key: field.key, node: readOnly(field) };
  const complaint = el("p", { class: "refusal", id: `${id}-refusal`, hidden: true });
  const input = (INPUTS[field.type] ?? lineInput)(field, id, complaint);
  const isEmpty = () => input.value().length === 0;
  return {
    key: field.key,
    node: input.node,
    value: input.value,
    isEmpty,
    isTouched: input.isTouched ?? (() => !isEmpty()),
    focus: () => input.controls[0].focus(),
    check: () => input.check?.() || (field.required && isEmpty() ? "This needs an answer." : ""),
    complain(text) {
      setText(complaint, text);
      complaint.hidden = text === "";
      for (const control of input.controls) {
        if (text) control.setAttribute("aria-invalid", "true");
        else control.removeAttribute("aria-invalid");
      }
    },
  };
}

const required = (field) => field.required && el("span", { class: "required" }, "required");

function lineInput(field, id, complaint) {
  const long = field.type === "textarea";
  const control = el(long ? "textarea" : "input", { id, name: field.key, dir: "auto", "aria-describedby": complaint.id, ...(long ? { rows: "3" } : { type: "text" }), ...(field.required && { "aria-required": "true" }) });
  return {
    node: el("div", { class: "field", data: { field: field.key } }, el("label", { class: "field-label", for: id }, el("bdi", {}, field.label), required(field)), control, complaint),
    controls: [control],
    value: () => control.value.trim(),
  };
}

function choiceInput(field, id, complaint) {
  const radio = field.type === "radio";
  const choices = (field.options ?? []).map((option, index) => choice(field, `${id}-${index}`, option, el("bdi", {}, option)));
  const other = field.allow_other ? otherChoice(field, id) : null;
  const none = radio && !field.required ? choice(field, `${id}-none`, "", el("span", { class: "facts" }, "no answer")) : null;
  if (none) none.box.checked = true;
  const all = [...choices, ...(other ? [other] : []), ...(none ? [none] : [])];
  const otherIsOn = () => other !== null && other.box.checked;
  const picked = () => [...choices.filter((one) => one.box.checked).map((one) => one.box.value), ...(otherIsOn() && other.text.value.trim() ? [other.text.value.trim()] : [])];
  return {
    node: el("fieldset", { class: "field", data: { field: field.key }, "aria-describedby": complaint.id },
      el("legend", { class: "field-label" }, el("bdi", {}, field.label), required(field)), all.map((one) => one.node), complaint),
    controls: all.map((one) => one.box),
    value: () => (radio ? picked()[0] ?? "" : picked()),
    isTouched: () => picked().length > 0,
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

/** What an observer sees of a field: the question and its choices, nothing to press. */
function readOnly(field) {
  const options = [...(field.options ?? []), ...(field.allow_other ? ["another answer"] : [])];
  return el("div", { class: "field", data: { field: field.key } }, el("p", { class: "field-label" }, el("bdi", {}, field.label), required(field)),
    options.length > 0 && el("ul", { class: "names" }, options.map((option) => el("li", {}, el("bdi", {}, option)))));
}

// ---- settled ----------------------------------------------------------------------------------------------------

function settledLine(entry) {
  const cancelled = entry.status === "cancelled";
  return el("li", { data: { settled: entry.id, status: entry.status } }, icon(cancelled ? "close" : "check"),
    el("div", {},
      el("p", { dir: "auto" }, el("span", { class: "settled-title" }, entry.title), ` · ${cancelled ? "cancelled" : "answered"}`),
      entry.answers.map(([label, text]) => el("p", { class: "facts", dir: "auto" }, `${label}: ${text}`))));
}
