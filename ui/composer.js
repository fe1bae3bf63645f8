// Composer: the operator speaks. Where the next message goes is always in sight and changes only by the operator's hand.

import { aimOf, commandOf, offersFor, speechOf } from "./commands.js";
import { listed } from "./deeds.js";
import { announce, button, el, icon, keyed, markOption, nameTag, setText } from "./dom.js";
import { keepIn, keptIn } from "./kept.js";
import { hueOf, isOpen, isOperator, lineOf } from "./model.js";
import { pref } from "./prefs.js";

const KEPT = { draft: "caucus.draft", target: "caucus.target", said: "caucus.said", reply: "caucus.reply", asks: "caucus.asks" }; // they survive a reload of the tab
const SAID_MAX = 50;
const HEIGHT_MAX_PX = 220;
const HINT_MS = 8_000;

const views = new WeakMap();

/** `seat` is what commands need of the page: `act(frame)`, which asks first where it must, and `go(where)`. */
export function render(root, model, send, now, seat) {
  let view = views.get(root) ?? null;
  if (!isOperator(model)) {
    if (view) root.replaceChildren();
    views.delete(root);
    root.hidden = true;
    return;
  }
  view ??= open(root, send, seat);
  view.model = model;
  root.hidden = false;
  if (view.peers !== model.peers || view.channels !== model.channels) {
    Object.assign(view, { peers: model.peers, channels: model.channels });
    refreshTargets(view, model);
  }
  showTarget(view, model);
  view.send.disabled = !isOpen(model);
  if (isOpen(model)) dropStrangeReply(view);
  if (view.noticeCount !== model.noticeCount) giveBack(view, model);
  if (view.held && model.mode !== "paused" && !view.asked) view.held = false; // somebody resumed
  if (model.mode === "paused") view.asked = false;
  showHint(view, now);
}

function open(root, send, seat) {
  const view = { root, seat, model: null, names: "", noticeCount: 0,
    said: keptIn(sessionStorage, KEPT.said, []), back: 0, // how far back in what was said one has walked
    offers: null, at: 0, // completions, and the marked one
    hint: "", hintUntil: 0,
    reply: keptIn(sessionStorage, KEPT.reply), // what the next message answers: {seq, id, name, words, room}
    sent: new Map(), // client_id -> what was sent under it: given back if it is refused
    plainHead: null, // the word at the head of a text that aims nothing: the operator said so
    aimed: "", // what the line says of them
    held: false, asked: false, // the room is paused, or asked to, because one types
    everyone: el("optgroup", { label: "The room" }), peersGroup: el("optgroup", { label: "Peers" }), channelsGroup: el("optgroup", { label: "Channels" }) };
  view.transmit = send;
  view.target = el("select", { id: "target", "aria-label": "Send to", onchange: () => choose(view) }, view.everyone, view.peersGroup, view.channelsGroup);
  view.list = el("ul", { id: "offers", class: "offers", role: "listbox", "aria-label": "Completions", tabindex: "0", hidden: true });
  view.hintLine = el("p", { class: "composer-hint" });
  view.text = el("textarea", { rows: "1", dir: "auto", "aria-label": "Message to the room", "aria-keyshortcuts": "Enter",
    "aria-autocomplete": "list", "aria-controls": "offers",
    onkeydown: (event) => onKey(event, view), oninput: () => onInput(view), onblur: () => closeOffers(view), onclick: () => offer(view) });
  view.replyName = el("bdi", { class: "reply-name" });
  view.replyWords = el("bdi", { class: "reply-words" });
  view.replyLine = el("div", { class: "reply-line", role: "group", "aria-label": "What this answers", hidden: true }, icon("reply"),
    el("button", { type: "button", class: "quiet reply-show", title: "Go to the message that this answers", onclick: () => seat.go("message", view.reply.id, view.reply.seq) },
      "Answer to ", view.replyName, ": ", view.replyWords),
    button("Do not answer it: say it by itself", "close", { class: "reply-drop", onclick: () => { answerTo(view, null); view.text.focus(); } }, true));
  view.asks = el("input", { type: "checkbox", id: "asks", onchange: () => expect(view, view.asks.checked) });
  view.aimText = el("bdi");
  view.aimLine = el("div", { class: "aim-line", role: "group", "aria-label": "Whom the text names", hidden: true }, icon("direct"), view.aimText,
    button("As chosen", null, { class: "quiet aim-plain", title: "Send it to whom is chosen beside To, and leave the name a word", onclick: () => { view.plainHead = headOf(view.text.value); showTarget(view, view.model); view.text.focus(); } }));
  view.send = button("Send", "send", { id: "say", class: "strong", title: "Send (Enter)", onclick: () => say(view) });
  view.text.value = sessionStorage.getItem(KEPT.draft) ?? "";
  view.wanted = sessionStorage.getItem(KEPT.target) ?? "all";
  root.append(view.replyLine, view.aimLine, el("label", { class: "to", for: "target" }, "To"), view.target, el("div", { class: "writing" }, view.list, view.text), view.send, el("div", { class: "composer-foot" }, view.hintLine,
    el("label", { class: "choice asks-choice", title: "The hub follows it until it is answered, declined or settled" }, view.asks, "Expects an answer")));
  answerTo(view, view.reply);
  expect(view, keptIn(sessionStorage, KEPT.asks, false));
  views.set(root, view);
  fit(view);
  return view;
}

const keep = (key, text) => sessionStorage.setItem(key, text);

// ---- the target -------------------------------------------------------------------------------------------------

function choose(view) {
  keep(KEPT.target, view.target.value);
  refreshTargets(view, view.model);
  showTarget(view, view.model);
}

/** Rewrite the choices by key; the chosen one stays, even when its peer or channel is gone. */
function refreshTargets(view, model, chosen = view.target.value || view.wanted) {
  const peers = model.peers.map((peer) => peer.name);
  const channels = Object.keys(model.channels);
  view.isGone = chosen !== "all" && !peers.includes(chosen) && !channels.includes(chosen);
  if (view.isGone) (chosen.startsWith("#") ? channels : peers).push(chosen);
  const names = JSON.stringify([peers, channels]);
  if (names === view.names) return;
  view.names = names;
  const option = (value) => el("option", { value }, value === "all" ? "everyone" : value);
  keyed(view.everyone, ["all"], (name) => name, option);
  keyed(view.peersGroup, peers, (name) => name, option);
  keyed(view.channelsGroup, channels, (name) => name, option);
  view.target.value = chosen;
}

function showTarget(view, model) {
  const aimed = aimNow(view, model);
  showAim(view, aimed);
  const target = aimed?.to?.[0] ?? (view.target.value || "all");
  const audience = target === "all" ? "broadcast" : target.startsWith("#") ? "channel" : "direct";
  view.root.dataset.audience = audience;
  view.root.toggleAttribute("data-aimed", Boolean(aimed));
  view.root.toggleAttribute("data-gone", !aimed?.to && Boolean(view.isGone) && target !== "all");
  view.root.style.setProperty("--hue", String(audience === "direct" ? hueOf(model, target) : 0));
  view.text.placeholder = !isOpen(model) ? "The hub is out of reach; you can go on typing"
    : view.isGone && target !== "all" ? goneText(target) : `Say something to ${target === "all" ? "everyone" : target}`;
}

/** Whom the text itself names; what is still being written names nobody. */
function aimNow(view, model) {
  if (isPlain(view) || commandOf(view.text.value.trim(), model)) return null;
  const aimed = aimOf(view.text.value, model);
  return aimed?.complaint && !/\s/.test(view.text.value) ? null : aimed;
}

/** Say it before it is sent, where the hands are. */
function showAim(view, aimed) {
  const names = aimed?.to?.map((name) => (name === "all" ? "everyone" : name)) ?? [];
  const words = aimed?.complaint ? `${aimed.complaint} It goes nowhere like this.` : names.length ? `This goes to ${listed(names)}${aimed.to[0] === "all" ? "" : " only"}` : "";
  view.aimLine.hidden = !words;
  view.aimLine.toggleAttribute("data-unknown", Boolean(aimed?.complaint));
  if (words && words !== view.aimed) announce(words);
  view.aimed = words;
  setText(view.aimText, words);
}

/** Choose where messages go: by the operator's own word, from the roster, a command or a completion. Who is gone stands there as gone. */
export function aim(root, target) {
  const view = views.get(root);
  if (!view) return;
  refreshTargets(view, view.model, target);
  view.target.value = target;
  keep(KEPT.target, target);
  showTarget(view, view.model);
  if (view.isGone) tell(view, goneText(target));
  view.text.focus();
}

const goneText = (target) => `${target} is gone: choose where this goes`;

/** Answer a message: it goes to where the answer belongs, which the operator can still change. */
export function reply(root, message) {
  const view = views.get(root);
  if (!view) return;
  const isLane = message.recipient === "all" || message.recipient.startsWith("#");
  const isSeveral = message.origin === "operator" && !isLane && !view.model.hues.has(message.recipient) && message.recipient.includes(", ");
  aim(root, isSeveral ? view.target.value : isLane || message.origin === "operator" ? message.recipient : message.sender);
  if (isSeveral && !view.text.value.trim()) write(view, message.recipient.split(", ").map((name) => `@${name} `).join(""));
  answerTo(view, { seq: message.seq, id: message.id, name: message.origin === "agent" ? message.sender : "operator",
    words: lineOf(message.content, 160), room: view.model.room });
  view.text.focus();
  announce(`Answering ${view.reply.name}${view.isGone ? `. ${goneText(view.target.value)}` : ""}`);
}

/** In another room, what was to be answered is another message. */
function dropStrangeReply(view) {
  if (!view.reply || view.reply.room === view.model.room) return false;
  answerTo(view, null);
  tell(view, "This is a new room: what you were answering is not in it. What you write is said by itself.");
  return true;
}

/** Put a text into the field, for the operator to go on with; words that stand there are kept. */
export function begin(root, text) {
  const view = views.get(root);
  if (!view) return;
  if (view.text.value.trim()) keepSaid(view, view.text.value);
  write(view, text);
  view.text.focus();
  view.text.setSelectionRange(text.length, text.length);
  offer(view);
}

/** Take words back that no room has confirmed; false when something else is being written. */
export function takeBack(root, { say: text, to }) {
  const view = views.get(root);
  if (!view || view.text.value.trim()) return false;
  if (!Array.isArray(to)) aim(root, to ?? "all"); // several are named in the text
  write(view, text.startsWith("/") ? `/${text}` : text);
  return true;
}

function expect(view, isExpected) {
  view.asks.checked = isExpected;
  keepIn(sessionStorage, KEPT.asks, isExpected);
}

function answerTo(view, answered) {
  view.reply = answered;
  keepIn(sessionStorage, KEPT.reply, answered);
  view.replyLine.hidden = !answered;
  setText(view.replyName, answered?.name ?? "");
  setText(view.replyWords, answered?.words ?? "");
}

// ---- keys -------------------------------------------------------------------------------------------------------

function onKey(event, view) {
  if (event.isComposing || event.keyCode === 229) return; // Enter ends an input method's word; Safari tells by the code
  if (view.offers && onOfferKey(event, view)) return event.preventDefault();
  const sends = pref("enterSends") ? !event.shiftKey : event.ctrlKey || event.metaKey;
  if (event.key === "Enter" && sends) {
    event.preventDefault();
    say(view);
  } else if (event.key === "ArrowUp" && !event.shiftKey) recall(event, view, 1);
  else if (event.key === "ArrowDown" && !event.shiftKey) recall(event, view, -1);
  else if (event.key === "Escape" && view.reply) {
    answerTo(view, null);
    event.stopPropagation(); // the field keeps the focus
  }
}

/** Walk through what was said, from an empty composer or from an entry that was not changed. */
function recall(event, view, step) {
  const shown = view.back ? view.said.at(-view.back) : "";
  const back = view.back + step;
  if (view.text.value !== shown || back < 0 || back > view.said.length) return;
  event.preventDefault();
  view.back = back;
  write(view, back ? view.said.at(-back) : "", back);
}

const headOf = (text) => /^\S*/.exec(text)[0];
const isPlain = (view) => view.plainHead !== null && headOf(view.text.value) === view.plainHead;

function onInput(view) {
  view.back = 0;
  view.hintUntil = 0;
  keep(KEPT.draft, view.text.value);
  if (!isPlain(view)) view.plainHead = null;
  showTarget(view, view.model);
  fit(view);
  offer(view);
  holdWhileTyping(view);
}

// ---- sending ----------------------------------------------------------------------------------------------------

function say(view) {
  const text = view.text.value;
  if (!text.trim() || view.send.disabled) return;
  const command = commandOf(text.trim(), view.model);
  if (command?.complaint) return tell(view, command.complaint);
  const aimed = command || isPlain(view) ? null : aimOf(text, view.model);
  if (aimed?.complaint) return tell(view, `${aimed.complaint} Nothing was sent. To say it as it stands, begin with a blank.`);
  if (aimed?.to.length > 1 && view.asks.checked) return tell(view, "A question goes to one peer, to a channel or to everyone: it would be answered by the first. Nothing was sent.");
  if (aimed && view.reply && !aimed.to.includes(view.reply.name) && !aimed.to.includes("all")) return tell(view, `This answers ${view.reply.name}, who would not hear it: Escape drops the answer. Nothing was sent.`);
  if (aimed && !aimed.rest.trim() && aimed.to.length === 1) obey(view, { target: aimed.to[0] });
  else if (command) obey(view, command);
  else if (!speak(view, text, aimed)) return;
  keepSaid(view, text);
  write(view, "");
  if (!command) view.text.focus();
}

/** Where ArrowUp finds it again. */
function keepSaid(view, text) {
  view.said = [...view.said.filter((old) => old !== text), text].slice(-SAID_MAX);
  keepIn(sessionStorage, KEPT.said, view.said);
}

/** Send words; false when there is no line. */
function speak(view, text, aimed) {
  if (dropStrangeReply(view)) return false; // the new room is here, and not drawn yet
  const about = { ...(view.reply && { reply_to: view.reply.seq }), ...(view.asks.checked && { expects_answer: true }) };
  const sent = view.transmit({ say: speechOf(text), to: toOf(aimed?.to ?? [view.target.value]), ...about });
  if (!sent) return false;
  view.sent.set(sent.client_id, { text, reply: view.reply, asks: view.asks.checked });
  if (view.sent.size > SAID_MAX) view.sent.delete(view.sent.keys().next().value);
  answerTo(view, null);
  expect(view, false);
  return true;
}

const toOf = (names) => (names.length === 1 ? names[0] : names);

function obey(view, command) {
  if (command.target) aim(view.root, command.target);
  else if (command.go) view.seat.go(command.go);
  else view.seat.act(command.frame);
}

function tell(view, text) {
  view.hint = text;
  view.hintUntil = Date.now() + HINT_MS;
  announce(text);
  showHint(view, Date.now());
}

function showHint(view, now) {
  const says = now < view.hintUntil ? view.hint : view.held ? "The room is paused while you write. It resumes when you send or clear the text." : "";
  const keys = pref("enterSends") ? "Enter sends, Shift Enter makes a new line" : "Ctrl Enter sends";
  setText(view.hintLine, says || `${keys}; @ # / offer peers, channels, commands`);
  view.hintLine.dataset.tone = says ? "says" : "keys";
}

/** A refused message goes back into an empty composer. */
function giveBack(view, model) {
  const refused = model.notices.filter((notice) => notice.n > view.noticeCount && view.sent.has(notice.clientId)).at(-1);
  view.noticeCount = model.noticeCount;
  if (!refused || view.text.value) return;
  const { text, reply: answered, asks } = view.sent.get(refused.clientId);
  view.said = view.said.filter((old) => old !== text);
  write(view, text);
  answerTo(view, answered);
  expect(view, asks);
}

function write(view, text, back = 0) {
  view.text.value = text;
  view.back = back;
  if (!isPlain(view)) view.plainHead = null;
  if (view.model) showTarget(view, view.model);
  fit(view);
  keep(KEPT.draft, text);
  closeOffers(view);
  holdWhileTyping(view);
}

/** The option "pause while typing": the room waits while a text stands unsent, and goes on after it. Never in a room that is not running. */
function holdWhileTyping(view) {
  const writes = view.text.value.trim() !== "" && !view.text.value.startsWith("/");
  if (pref("pauseWhileTyping") && writes && !view.held && view.model.mode === "running") {
    view.held = view.asked = Boolean(view.transmit({ action: "pause" }));
  } else if (!writes && view.held) {
    view.held = view.asked = false;
    view.transmit({ action: "resume" });
  }
}

// ---- completion -------------------------------------------------------------------------------------------------

function offer(view) {
  const { text } = view;
  view.offers = text.selectionStart === text.selectionEnd ? offersFor(text.value, text.selectionStart, view.model) : null;
  if (!view.offers) return closeOffers(view);
  view.at = 0;
  view.list.replaceChildren(...view.offers.options.map((option, index) => el("li", {
    id: `offer-${index}`, role: "option", class: "offer", onmousedown: (event) => { event.preventDefault(); take(view, index); },
  }, offerName(view, option), el("span", { class: "facts" }, option.hint))));
  view.list.hidden = false;
  markOption(view.text, view.list, view.at);
}

function offerName(view, { name, label }) {
  const isPeer = name && name !== "all" && !name.startsWith("#");
  return isPeer ? nameTag(label, hueOf(view.model, name)) : el("bdi", { class: "offer-name" }, label);
}

function closeOffers(view) {
  view.offers = null;
  view.list.hidden = true;
  view.text.removeAttribute("aria-activedescendant");
}

/** True if the key was for the offers. */
function onOfferKey(event, view) {
  const count = view.offers.options.length;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    view.at = (view.at + (event.key === "ArrowDown" ? 1 : count - 1)) % count;
    markOption(view.text, view.list, view.at);
  } else if (event.key === "Tab" || (event.key === "Enter" && !event.shiftKey)) {
    if (event.key === "Enter" && isWhole(view)) {
      closeOffers(view);
      return false; // the command is complete: Enter gives it
    }
    take(view, view.at);
  } else if (event.key === "Escape") {
    closeOffers(view);
    event.stopPropagation(); // the field keeps the focus
  } else return false;
  return true;
}

const isWhole = (view) => view.offers.options[view.at].insert?.trim() === view.text.value.trim();

function take(view, index) {
  const { from } = view.offers;
  const option = view.offers.options[index];
  const { text } = view;
  const after = text.value.slice(text.selectionStart);
  if (option.target) {
    write(view, after.trimStart());
    aim(view.root, option.target);
    return;
  }
  const head = text.value.slice(0, from) + option.insert;
  write(view, head + after);
  text.setSelectionRange(head.length, head.length);
  text.focus();
  offer(view);
}

// The composer keeps its height while its text is measured: were it to shrink for an instant, the browser would scroll
// the flow above, and following would end.
function fit(view) {
  view.root.style.height = `${view.root.offsetHeight}px`;
  view.text.style.height = "auto";
  view.text.style.height = `${Math.min(view.text.scrollHeight + 2, HEIGHT_MAX_PX)}px`;
  view.root.style.height = "";
}
