// Inline: the Markdown marks of one line, such as a title, an option or a topic, as the tokens that markdown.js draws.
// Pure. The hub parses messages, once for all consoles, with all their blocks. These lines stand in many places of the
// wire, some are put together by the page, and few have marks: so they are parsed here, and the wire stays as it is.
//
//   inlineOf(text, hasLinks)   [{type, raw} | {type, children, attrs?}]; a mark that opens nothing stays in the text

const INLINE_MAX = 2_000; // characters; a longer text is no line, and to look for its pairs would take time
const NEST_MAX = 4; // marks within marks

const MARKS = /[\\`*_~<[]|:\/\//;
const BODY = String.raw`((?:\\.|${"`[^`]*`|`(?![^`]*`)"}|[^\\${"`"}])+?)`; // no mark ends in code, or where it is escaped
const WORD = String.raw`[\p{L}\p{N}_]`;

/** What `mark` encloses: words that touch it on both sides. */
const enclosed = (mark, before, after) => new RegExp(String.raw`${before}${mark}(?!\s)${BODY}(?<!\s)${mark}${after}`, "suy");
const nest = (type) => ([, words], hasLinks, depth) => ({ type, children: tokensOf(words, hasLinks, depth + 1) });
const bare = (url) => ({ type: "link", attrs: { url }, children: [{ type: "text", raw: url }] });
const trimmed = (code) => (/^ .*\S.* $/su.test(code) ? code.slice(1, -1) : code);

const RULES = [ // tried in this order at each sign
  [/\\([!-/:-@[-`{-~])/uy, ([, sign]) => ({ type: "text", raw: sign })],
  [/(?<!`)(`+)(?!`)(.*?[^`])\1(?!`)/suy, ([, , code]) => ({ type: "codespan", raw: trimmed(code) })],
  [enclosed(String.raw`\*\*`, "", String.raw`(?!\*)`), nest("strong")],
  [enclosed(String.raw`(?<!\*)\*(?!\*)`, "", ""), nest("emphasis")],
  [enclosed("__", `(?<!${WORD})`, `(?!${WORD})`), nest("strong")],
  [enclosed("_", `(?<!${WORD})`, `(?!${WORD})`), nest("emphasis")],
  [enclosed("~~", "", "(?!~)"), nest("strikethrough")],
];
const LINKS = [
  [/\[((?:\\.|[^[\]\\])+)\]\(([^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)*)(?: +"([^"]*)")?\)/suy,
    ([, words, url, title], _, depth) => ({ type: "link", attrs: { url, title }, children: tokensOf(words, false, depth + 1) })],
  [/<((?:https?:\/\/|mailto:)[^\s<>]+)>/uy, ([, url]) => bare(url)],
  [/(?<![\p{L}\p{N}_])https?:\/\/[^\s<>]*[^\s<>.,:;!?'"`*_~)\]]/uy, ([url]) => bare(url)],
];

/** The tokens of a line; without links, as inside of a button, their marks stay as they were written. */
export function inlineOf(text, hasLinks = true) {
  return text.length <= INLINE_MAX && MARKS.test(text) ? tokensOf(text, hasLinks, 0) : [{ type: "text", raw: text }];
}

const BEGINS = /[\\`*_~<[]|https?:\/\//g; // where a rule may find something

function tokensOf(text, hasLinks, depth) {
  const tokens = [];
  const rules = depth > NEST_MAX ? [] : hasLinks ? [...RULES, ...LINKS] : RULES;
  let done = 0;
  const say = (to) => { if (to > done) tokens.push({ type: "text", raw: text.slice(done, to) }); };
  for (const { index } of text.matchAll(BEGINS)) {
    if (index < done) continue;
    for (const [rule, make] of rules) {
      rule.lastIndex = index;
      const found = rule.exec(text);
      if (found === null) continue;
      say(index);
      tokens.push(make(found, hasLinks, depth));
      done = index + found[0].length;
      break;
    }
  }
  say(text.length);
  return tokens;
}
