// Share: links by which a colleague may look on, made and revoked by the operator. The hub knows a link's token by its
// hash only, so the page shows the whole link once, to who has made it; in the address it stands behind "#", which no
// browser sends to anybody.

import { button, copyAndTell, el, keyed, setText } from "./dom.js";
import { ageText, isOpen, isOperator } from "./model.js";

const ASK_MS = 2_000; // so often the hub is asked who looks through them, while the dialog is open

const views = new WeakMap();
const parts = new WeakMap(); // a link's line -> the nodes that change

export function render(root, model, send, now, seat) {
  root.hidden = !isOperator(model);
  if (root.hidden || !root.closest("dialog").open) return;
  const view = views.get(root) ?? open(root, seat);
  const isGuarded = model.link.auth === true;
  const { list, made } = model.shares;
  if (isGuarded && isOpen(model) && now - view.askedAt >= ASK_MS && seat.ask({ shares: true })) view.askedAt = now;
  setText(view.what, isGuarded ? GUARDED : OPEN);
  view.make.hidden = !isGuarded;
  view.make.disabled = !isOpen(model);
  const isOut = made !== null && list.some((one) => one.id === made.id);
  view.made.hidden = !isOut;
  const address = isOut ? addressOf(made, location.origin) : "";
  if (view.link.value !== address) view.link.value = address;
  setText(view.reach, isOut ? reachOf(address) : "");
  keyed(view.list, list, (one) => one.id, (one) => line(one, seat), (node, one) => {
    const part = parts.get(node);
    const looks = one.consoles === 0 ? "nobody looks through it now" : `${one.consoles} ${one.consoles === 1 ? "looks" : "look"} through it now`;
    setText(part.about, `made at ${one.by} ${ageText(Math.max(0, now / 1000 - one.ts))} ago · ${looks}${one.id === made?.id ? " · the one above" : ""}`);
    part.revoke.disabled = !isOpen(model);
  });
}

const GUARDED = "Who opens such a link sees all that you see, as an observer: the room, its record, its exports. It can change nothing, and make no link. It holds until you revoke it, or the hub ends.";
const OPEN = "This hub asks for no token: whoever reaches its address is the operator, so no link could show less. Start it with --operator-token, and links for lookers-on can be made here.";

/** Where a link leads: to the address under which the hub is known, else to the one that this page has. */
export const addressOf = ({ token, url }, origin) => `${url || origin}/#token=${token}`;

const LOOPBACK = /^https?:\/\/(?:localhost|127\.[\d.]+|\[::1\])(?::|\/)/;

/** Who can follow it. */
export function reachOf(address) {
  if (LOOPBACK.test(address)) return "It is shown once. It leads to this machine: elsewhere it works through a tunnel only, or with the hub's own address in its place.";
  if (address.startsWith("http:")) return "It is shown once. The way there is plain http: who can listen in this network can read it.";
  return "It is shown once: the hub keeps no more of it than a hash.";
}

function open(root, seat) {
  const view = { askedAt: -Infinity, list: el("ul", { class: "shares" }), what: el("p", { class: "facts", id: "share-what" }), reach: el("p", { class: "facts" }) };
  view.make = button("Make a link to look on", "link", { class: "share-make", "aria-describedby": "share-what", onclick: () => seat.ask({ share: true }) });
  view.link = el("input", { type: "text", id: "share-link", readonly: true, "aria-label": "The link", onfocus: () => view.link.select() });
  view.made = el("div", { class: "share-made", hidden: true }, view.link, button("Copy", "copy", { class: "share-copy", onclick: () => copyAndTell(view.link.value, "the link") }), view.reach);
  root.append(el("h3", {}, "For a colleague"), view.what, view.make, view.made, view.list);
  views.set(root, view);
  return view;
}

function line({ id }, seat) {
  const part = { about: el("span", {}), revoke: button("Revoke", "close", { class: "share-revoke", title: "End this link, and every console that came by it", onclick: () => seat.ask({ unshare: id }) }) };
  const node = el("li", { data: { share: id } }, part.about, part.revoke);
  parts.set(node, part);
  return node;
}
