// Query: what is looked for in the conversation, read from one line. Pure.
//
//   parse(text)                 {wanted, unwanted, tests, faults}: words and phrases in lower case; what else is asked
//   isFound(message, query)     whether a message is meant, by its words as they are shown, and by who said it to whom
//   isAsking(query)             whether it asks for anything
//   wordsOf(query)              the words and phrases to mark, the longest first
//   recordOf(query, spell)      {q, sender, scope}: what of it the record's index is asked
//   siftOf(query)               the rest, as a query: what of the record's reply is meant
//
// Words in any order must all be there; "several words" stand together; from:, to:, in:, with: take a name (in quotes if
// it has spaces), a # may be left out after in:; has:code, has:link, has:table, has:list; a - before any of them takes away.

import { lowerOf } from "./model.js";

const TERM = /(-?)(?:(from|to|in|with|has):)?(?:"([^"]*)("|$)|([^\s"]+))/giu;
const TERMS_MAX = 32; // as the hub takes words; a longer line is no question
const HAS = { // what may be in a message, by its source
  code: /(^|\n)\s*(```|~~~)|`[^`\n]+`/,
  link: /\bhttps?:\/\/|\]\([^)\s]+/i,
  table: /(^|\n)\s*\|?\s*:?-{2,}:?\s*\|/,
  list: /(^|\n)\s*([-*+]|\d+[.)])\s+\S/,
};
const OPERATOR = ["operator", "human"];

const EMPTY = { wanted: [], unwanted: [], tests: [], faults: [] };

const known = { text: "", query: EMPTY }; // the line that was read last: each row of the flow asks for it

/** Read a line, in lower case or not. */
export function queryOf(text) {
  if (known.text !== text) Object.assign(known, { text, query: parse(text) });
  return known.query;
}

/** Read a line. `tests`: [{key, value, isNot}]; `faults`: what of it is not understood, in words. */
export function parse(text) {
  const query = { wanted: [], unwanted: [], tests: [], faults: [] };
  const terms = [...String(text).matchAll(TERM)];
  if (terms.length > TERMS_MAX) query.faults.push(`only the first ${TERMS_MAX} words are looked for`);
  if (terms.some(([, , , , closed]) => closed === "")) query.faults.push("a quote is not closed");
  for (const [, minus, key, quoted, , bare] of terms.slice(0, TERMS_MAX)) take(query, minus === "-", key?.toLowerCase(), lowerOf(quoted ?? bare ?? "").trim());
  return query;
}

function take(query, isNot, key, value) {
  const [, bareKey] = /^(from|to|in|with|has):$/.exec(value) ?? [];
  if (key === undefined && bareKey) query.faults.push(`${bareKey}: needs a ${bareKey === "has" ? "kind" : "name"}`);
  else if (key === undefined) {
    if (value && value !== "-") (isNot ? query.unwanted : query.wanted).push(value.replace(/\s+/g, " "));
  } else if (value === "") query.faults.push(`${key}: needs a ${key === "has" ? "kind" : "name"}`);
  else if (key === "has" && !Object.hasOwn(HAS, value)) query.faults.push(`has: takes ${Object.keys(HAS).join(", ")}, not ${value}`);
  else query.tests.push({ key, value: value.replace(/^@/, ""), isNot });
}

/** Whether anything is asked. */
export const isAsking = ({ wanted, unwanted, tests }) => wanted.length + unwanted.length + tests.length > 0;

/** What is marked in a message, and as one where it stands so; never what must not be there. */
export const wordsOf = ({ wanted }) => [...new Set([wanted.join(" "), ...wanted])].filter(Boolean).sort((a, b) => b.length - a.length);

// ---- a message --------------------------------------------------------------------------------------------------

export function isFound(message, query) {
  return query.tests.every(({ key, value, isNot }) => TESTS[key](message, value) !== isNot) && hasWords(message, query);
}

const ORIGINS = { operator: "operator", human: "operator", hub: "hub" }; // by the hub's word, whatever a sender calls itself
const isFrom = ({ origin, sender }, value) => (Object.hasOwn(ORIGINS, value) ? origin === ORIGINS[value] : origin === "agent" && lowerOf(sender) === value);
const isNamed = (name, value) => name === value || (OPERATOR.includes(name) && OPERATOR.includes(value));
const targetsOf = ({ recipient }) => lowerOf(String(recipient)).split(", ");

const TESTS = {
  from: isFrom,
  to: (message, value) => targetsOf(message).some((name) => isNamed(name, value) || (name === "all" && value === "everyone")),
  in: (message, value) => {
    const [scope] = targetsOf(message);
    if (value === "direct") return scope !== "all" && !scope.startsWith("#");
    return scope === value || scope === `#${value}` || (scope === "all" && value === "everyone");
  },
  with: (message, value) => isFrom(message, value) || targetsOf(message).some((name) => isNamed(name, value)),
  has: ({ content }, value) => HAS[value].test(content),
};

function hasWords(message, { wanted, unwanted }) {
  if (!wanted.length && !unwanted.length) return true;
  const source = lowerOf(message.content);
  const shown = shownOf(source);
  const sender = lowerOf(message.sender);
  const has = (word) => shown.includes(word) || source.includes(word) || sender.includes(word);
  return wanted.every(has) && !unwanted.some(has);
}

/**
 * A message's words as they are read: without the signs of Markdown, so that a phrase goes on across a link, a mark, the
 * cells of a table and the end of a line.
 */
function shownOf(source) {
  if (!/[*_`~[\]|\\\n]|\s\s/.test(source)) return source;
  return source
    .replace(/!?\[([^\]\n]*)\]\([^)\n]*\)/g, "$1")
    .replace(/^[ \t]*(?:[#>]+|[-*+]|\d+[.)])[ \t]+|^[ \t]*\|?[ \t:|-]{3,}\|?[ \t]*$/gm, " ")
    .replace(/\\(?=[^\w\s])|[*`~]+|(?<![\p{L}\p{N}])_+|_+(?![\p{L}\p{N}])/gu, "")
    .replace(/[|\s]+/g, " ");
}

// ---- the record -------------------------------------------------------------------------------------------------

/** What of a query the hub's index is asked: whole words, one sender as it is spelt there, one scope; all else is sifted here. */
export function recordOf(query, spell = (name) => name) {
  const quote = (word) => (/\s/.test(word) ? `"${word}"` : word);
  const one = (key) => query.tests.find((test) => test.key === key && !test.isNot)?.value;
  const from = one("from");
  const scope = one("in");
  return {
    q: query.wanted.length ? [...query.wanted.map(quote), ...query.unwanted.map((word) => `-${quote(word)}`)].join(" ") : "", // it wants a word
    sender: from === undefined ? "" : OPERATOR.includes(from) ? "human" : spell(from),
    scope: scope === undefined || scope === "direct" ? "" : scope === "everyone" ? "all" : spell(scope.startsWith("#") || scope === "all" ? scope : `#${scope}`),
  };
}

/** What the index does not know: it has found the words already, and tells them apart in its own way. */
export const siftOf = (query) => ({ ...query, wanted: [], unwanted: query.wanted.length ? [] : query.unwanted });
