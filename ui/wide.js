// Wide: a form that is long opens in the flow's width, over the upper part of the conversation, and goes back beside it.
//
//   isLong(form)             whether beside the flow it would be a tower of short lines
//   widener(form)            the button that opens a card wide and puts it back; null for a short form
//   widen(card, isWide)      do it; on a phone a form has the whole width in any case (console.css)

import { button, setText } from "./dom.js";

const LONG_CHARS = 500; // beside the flow a line has some 38

const charsOf = ({ label, options }) => [label, ...(options ?? [])].join("").length;

export const isLong = ({ title, detail, fields }) => [title, detail ?? ""].join("").length + fields.reduce((sum, field) => sum + charsOf(field), 0) > LONG_CHARS;

export function widener(form) {
  if (!isLong(form)) return null;
  return button("Open wide", "next", { class: "widen quiet", "aria-expanded": "false", onclick: ({ currentTarget }) => {
    const card = currentTarget.closest(".form");
    widen(card, card.dataset.wide !== "true");
  } });
}

export function widen(card, isWide) {
  const control = card.querySelector(".widen");
  if (!control) return;
  if (isWide) for (const other of document.querySelectorAll('.form[data-wide="true"]')) if (other !== card) widen(other, false);
  card.dataset.wide = String(isWide);
  control.setAttribute("aria-expanded", String(isWide));
  setText(control.lastElementChild, isWide ? "Back beside" : "Open wide");
  card.onkeydown = isWide ? (event) => onKey(card, event) : null;
}

function onKey(card, event) {
  if (event.key !== "Escape") return;
  event.stopPropagation();
  widen(card, false);
}
