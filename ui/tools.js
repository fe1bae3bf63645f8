// Tools: search, filters, the choice of view, and the export of what is shown. What they are set to lives in the flow.

import { namesPlace, partOf, withPart } from "./address.js";
import { openBeyond, search } from "./beyond.js";
import { button, el, icon, keyed, saveAs, setText } from "./dom.js";
import { draftOf, keepDraft } from "./drafts.js";
import * as flow from "./flow.js";
import { lowerOf } from "./model.js";
import { onPref, pref, setPref } from "./prefs.js";
import { isAsking, queryOf } from "./query.js";
import { emptyFilter, isNarrow as isFiltered } from "./rows.js";
import { FORMATS, transcriptOf } from "./transcript.js";
import { WHEN_HELP, momentOf } from "./when.js";

const TYPING_MS = 150; // the conversation is searched when the fingers rest

const VIEWS = [["transcript", "Transcript", "flow"], ["both", "Both", "both"], ["picture", "Picture", "lanes"]];
const FATES = [["", "Any fate"], ["unfetched", "Not fetched"], ["unanswered", "Unanswered"]];
const KINDS = [["", "Any kind"], ["message", "Messages"], ["answer", "Answers to forms"], ["control", "Controls"], ["system", "The hub's lines"]];

const QUERY_LINK = "q="; // what is looked for lives in the address
const QUERY_HELP = 'Words, "a phrase", from: to: in: with: a name, has:code (link, table, list), and - before what must not be';
const DRAFT = "filter";

const views = new WeakMap();
const isOlder = (from) => from > 1 && from < Infinity;
const flowRoot = () => document.getElementById("flow");

export function render(root, model) {
  const view = views.get(root) ?? open(root);
  view.model = model;
  if (!view.isRestored) restore(view, model);
  if (!view.panel.hidden || isFiltered(flow.filterOf())) drawChoices(view, model);
  drawHits(view);
  if (view.isRestored) keep(view);
  if (view.isRestored && partOf(location.hash, QUERY_LINK) === null && view.search.value.trim()) tellAddress(view.search.value.trim()); // a thread that was left takes its address with it
  if (view.panel.hidden) return;
  const { passed, all, isNarrow, hasGap } = flow.countsOf();
  setText(view.shown, `${isNarrow ? `${passed.toLocaleString()} of ${all.toLocaleString()} shown` : `All ${all.toLocaleString()} shown`}${hasGap ? ", with a gap" : ""}`);
  view.clear.disabled = !isNarrow;
}

/** Put the cursor into the search field. */
export function focusSearch() {
  const field = document.getElementById("search");
  field?.focus();
  field?.select();
}

/** Ask for a time, and go there. */
export function askTime() {
  const view = views.get(document.getElementById("flow-tools"));
  if (view) showTime(view, true);
}

function open(root) {
  const view = { model: null, timer: null /* of what is typed and not looked for yet */, isRestored: false, kept: "" };
  const change = () => apply(view);
  view.beyond = openBeyond();
  view.search = el("input", { id: "search", type: "search", placeholder: "Search", title: QUERY_HELP, "aria-label": "Search the conversation", "aria-description": QUERY_HELP, autocomplete: "off", spellcheck: "false" });
  view.hits = el("span", { class: "hits", role: "status" });
  view.back = button("Previous place (Shift Enter)", "up", { onclick: () => step(view, -1) }, true);
  view.next = button("Next place (Enter)", "down", { onclick: () => step(view, 1) }, true);
  view.only = el("input", { type: "checkbox", onchange: change });
  view.onlyLabel = el("label", { class: "choice only-hits", title: "Show only these" }, view.only, " only these");
  view.goTime = button("Go to a time (d)", "wait", { "aria-expanded": "false", "aria-controls": "flow-time", onclick: () => showTime(view, view.time.hidden) }, true);
  view.toggle = button("Filter", "filter", { class: "quiet", "aria-expanded": "false", "aria-controls": "flow-filters", onclick: () => showFilters(view, view.panel.hidden) });
  view.who = el("select", { "aria-label": "By or to whom", onchange: change });
  view.scope = el("select", { "aria-label": "Where", onchange: change });
  view.kind = el("select", { "aria-label": "Kind", onchange: change }, ...KINDS.map(([value, word]) => el("option", { value }, word)));
  view.fate = el("select", { "aria-label": "What became of it", onchange: change }, ...FATES.map(([value, word]) => el("option", { value }, word)));
  view.shown = el("span", { class: "shown", role: "status" });
  view.clear = button("Clear", "close", { class: "quiet", onclick: () => clear(view) });
  view.panel = el("div", { id: "flow-filters", role: "group", "aria-label": "Filters", hidden: true },
    view.who, view.scope, view.kind, view.fate, view.clear, view.shown,
    el("span", { class: "save-shown", role: "group", "aria-label": "Save what is shown" }, "Save as",
      ...Object.keys(FORMATS).map((format) => button({ json: "JSON", markdown: "Markdown", text: "Text" }[format], null, { class: "quiet", data: { save: format }, onclick: () => save(view, format) }))));
  view.switch = el("div", { class: "view-switch", role: "group", "aria-label": "What to see" },
    ...VIEWS.map(([name, word, iconName]) => button(word, iconName, { class: "quiet", data: { view: name }, title: word, onclick: () => setPref("view", name) })));
  root.append(
    el("div", { class: "tools-row" },
      el("span", { class: "search-box" }, icon("search"), view.search), view.hits, view.back, view.next, view.onlyLabel, el("span", { class: "tools-gap" }), view.goTime, view.toggle, view.switch),
    timeForm(view), view.beyond.node, view.panel);
  view.search.addEventListener("input", () => { clearTimeout(view.timer); view.timer = setTimeout(change, TYPING_MS); });
  view.search.addEventListener("keydown", (event) => onSearchKey(view, event));
  onPref((name) => { if (name === "view") showView(view); });
  addEventListener("hashchange", () => { if (partOf(location.hash, QUERY_LINK) !== null) lookFor(view, queryOfAddress()); });
  showView(view);
  views.set(root, view);
  return view;
}

function apply(view) {
  clearTimeout(view.timer);
  view.timer = null;
  const needle = lowerOf(view.search.value.trim());
  flow.setFilter({ ...flow.filterOf(), who: view.who.value, scope: view.scope.value, kind: view.kind.value, fate: view.fate.value, needle, only: view.only.checked });
  search(view.beyond, view.search.value.trim(), view.model);
  tellAddress(view.search.value.trim());
  render(view.search.closest("#flow-tools"), view.model);
}

// ---- what survives a reload, and what is in the address ----------------------------------------------------------

/** Take up what was set before the reload; the address says more, for somebody may have sent it. */
function restore(view, model) {
  if (!document.body.hasAttribute("data-record") && (!model.link.isTold || model.isOpening)) return;
  view.isRestored = true;
  const kept = draftOf(DRAFT) ?? {};
  const isLinked = partOf(location.hash, QUERY_LINK) !== null;
  const isElsewhere = namesPlace(location.hash); // a link to one message is for all to see
  const filter = emptyFilter();
  for (const key of ["who", "scope", "kind", "fate", "needle"]) if (!isElsewhere && typeof kept[key] === "string") filter[key] = kept[key];
  if (!isElsewhere) filter.only = kept.only === true;
  const typed = isLinked ? queryOfAddress() : filter.needle;
  if (isFiltered(filter) || typed) {
    flow.setFilter({ ...filter, thread: flow.filterOf().thread, alone: flow.filterOf().alone, needle: lowerOf(typed) });
    lookFor(view, typed);
  }
  flow.placeAgain();
}

function keep(view) {
  const { who, scope, kind, fate, needle, only } = flow.filterOf();
  const text = JSON.stringify({ who, scope, kind, fate, needle, only });
  if (view.kept === text) return;
  view.kept = text;
  keepDraft(DRAFT, who || scope || kind || fate || needle || only ? JSON.parse(text) : null);
}

function queryOfAddress() {
  try {
    return decodeURIComponent(partOf(location.hash, QUERY_LINK) ?? "");
  } catch {
    return ""; // half of a sign: no query of ours
  }
}

/** Look for a line, as if it were typed. */
function lookFor(view, typed) {
  view.search.value = typed;
  drawChoices(view, view.model);
  drawFields(view, flow.filterOf());
  apply(view);
}

/** Look for a line in the conversation. */
export function find(typed) {
  const view = views.get(document.getElementById("flow-tools"));
  if (view?.model) lookFor(view, typed);
}

/** Have the address say what is looked for; one of a place stays as it is, but says nothing of what is looked for no more. */
function tellAddress(typed) {
  const address = withPart(location.hash, QUERY_LINK, typed ? encodeURIComponent(typed) : null);
  if ((typed && namesPlace(location.hash)) || location.hash === address) return;
  try {
    history.replaceState(null, "", address || location.pathname + location.search);
  } catch {
    // browsers take only so many changes a minute: the next one tells
  }
}

// ---- a time -----------------------------------------------------------------------------------------------------

function timeForm(view) {
  view.when = el("input", { id: "when", type: "text", autocomplete: "off", spellcheck: "false", placeholder: "yesterday 14:00", "aria-describedby": "when-refused" });
  view.whenRefused = el("p", { id: "when-refused", class: "refusal", role: "alert", hidden: true });
  view.time = el("form", { id: "flow-time", class: "record-bar", hidden: true },
    el("label", { for: "when" }, "Go to"), view.when, el("button", { type: "submit" }, "Go"),
    button("Back to now (l)", "down", { class: "quiet", onclick: () => { showTime(view, false); flow.follow(); flowRoot().focus({ preventScroll: true }); } }),
    button("Close", "close", { onclick: () => { showTime(view, false); view.goTime.focus(); } }, true), view.whenRefused);
  view.time.addEventListener("submit", (event) => { event.preventDefault(); goToTime(view); });
  view.time.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    showTime(view, false);
    view.goTime.focus();
  });
  return view.time;
}

function showTime(view, shown) {
  view.time.hidden = !shown;
  view.goTime.setAttribute("aria-expanded", String(shown));
  if (!shown) return;
  view.when.focus();
  view.when.select();
}

function goToTime(view) {
  const ms = momentOf(view.when.value, Date.now(), pref("utc"));
  view.whenRefused.hidden = ms !== null;
  setText(view.whenRefused, ms === null ? WHEN_HELP : "");
  view.when.setAttribute("aria-invalid", String(ms === null));
  if (ms !== null) void flow.openTime(ms);
}

function clear(view) {
  flow.leaveThread();
  flow.leaveOnly();
  for (const select of [view.who, view.scope, view.kind, view.fate]) select.value = "";
  view.only.checked = false;
  apply(view);
  view.toggle.focus(); // the button itself is free of use now
}

function onSearchKey(view, event) {
  if (event.isComposing || event.keyCode === 229) return;
  if (event.key === "Enter") {
    event.preventDefault();
    if (flow.filterOf().needle !== lowerOf(view.search.value.trim())) apply(view);
    if (flow.countsOf().hits === 0) view.beyond.list.querySelector("button")?.click(); // what is older, the newest of it
    else step(view, event.shiftKey ? 1 : -1); // the newest first: what one looks for was mostly said just now
  } else if (event.key === "Escape" && view.search.value) {
    event.stopPropagation();
    view.search.value = "";
    apply(view);
  }
}

function step(view, by) {
  flow.goToHit(by);
  drawHits(view);
}

function drawHits(view) {
  const filter = flow.filterOf();
  const { hits, hit } = flow.countsOf();
  const query = queryOf(filter.needle);
  const isOn = isAsking(query);
  const [fault] = query.faults;
  setText(view.hits, fault && !hits ? fault : !isOn ? "" : hits === 0 ? (isOlder(flow.loadedFrom()) ? "none on this page" : "nowhere") : hit ? `${hit.toLocaleString()} of ${hits.toLocaleString()}` : `${hits.toLocaleString()} found`);
  for (const node of [view.back, view.next, view.onlyLabel]) node.hidden = !isOn;
  for (const node of [view.back, view.next]) node.disabled = hits === 0;
  const count = [filter.who, filter.scope, filter.kind, filter.fate].filter(Boolean).length;
  setText(view.toggle.lastElementChild, count ? `Filter (${count})` : "Filter");
  view.toggle.dataset.on = String(count > 0);
  drawFields(view, filter);
  if (view.timer === null && document.activeElement !== view.search && lowerOf(view.search.value.trim()) !== filter.needle) view.search.value = filter.needle; // the field says what is marked
}

/** The fields say what the flow is set to: a permalink may have cleared it. */
function drawFields(view, filter) {
  const fields = [[view.who, filter.who], [view.scope, filter.scope], [view.kind, filter.kind], [view.fate, filter.fate]];
  for (const [select, value] of fields) if (select.value !== value && document.activeElement !== select) select.value = value;
  if (view.only.checked !== filter.only) view.only.checked = filter.only;
}

function showFilters(view, shown) {
  view.panel.hidden = !shown;
  view.toggle.setAttribute("aria-expanded", String(shown));
  render(view.search.closest("#flow-tools"), view.model);
}

function drawChoices(view, model) {
  const { who, scope } = flow.filterOf();
  const isMissing = (select, value) => value !== "" && ![...select.options].some((option) => option.value === value);
  if (view.hueCount !== model.hues.size || view.huesOf !== model || isMissing(view.who, who)) { // every peer that was ever here has one
    Object.assign(view, { hueCount: model.hues.size, huesOf: model });
    const people = [["", "Anybody"], ["operator", "The operator"], ["hub", "The hub"], ...[...new Set([...model.hues.keys(), ...(who.startsWith("=") ? [who.slice(1)] : [])])].sort().map((name) => [`=${name}`, name])];
    choose(view.who, people);
  }
  const channels = new Set([...Object.keys(model.channels), ...model._recent.keys(), ...(scope.startsWith("#") ? [scope] : [])]);
  choose(view.scope, [["", "Anywhere"], ["broadcast", "To everyone"], ["direct", "Direct"], ...[...channels].sort().map((name) => [name, name])]);
}

const choose = (select, choices) => keyed(select, choices, ([value]) => value, ([value, word]) => el("option", { value }, word));

function save(view, format) {
  const [ending, type] = FORMATS[format];
  const text = transcriptOf(flow.shownOf(), format, { utc: pref("utc"), version: view.model.version });
  saveAs(new Blob([text], { type: `${type};charset=utf-8` }), `caucus-shown.${ending}`);
}

function showView(view) {
  const body = flowRoot().closest(".flow-body");
  body.dataset.view = pref("view");
  for (const node of view.switch.children) node.setAttribute("aria-pressed", String(node.dataset.view === pref("view")));
}
