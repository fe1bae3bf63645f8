// Answers: whether the hub will take an answer, checked before it is sent, by the hub's own rules. Pure.

const ANSWER_MAX = 4096; // characters of one answer, as code points
const CHOICES_MAX = 33; // 32 options and one of the operator's own

const NOT_BLANK = /[^\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/; // the white space of the hub's Python

const isBlank = (text) => !NOT_BLANK.test(text);

/** What is wrong with `value` (a string, or for checkbox a list of strings) as the answer to `field`; "" if nothing. */
export function complaintOf(field, value) {
  const texts = [value].flat().filter((text) => !isBlank(text));
  if (texts.length === 0) return field.required ? "This needs an answer." : "";
  const longest = Math.max(...texts.map((text) => [...text].length));
  if (longest > ANSWER_MAX) return `At most ${ANSWER_MAX.toLocaleString("en")} characters; this has ${longest.toLocaleString("en")}.`;
  if (texts.some((text) => !text.isWellFormed())) return "This has a broken character in it.";
  const strange = field.options?.length && !field.allow_other ? texts.find((text) => !field.options.includes(text)) : undefined;
  if (strange !== undefined) return `${JSON.stringify(strange)} is not one of the choices.`;
  if (field.type !== "checkbox") return "";
  if (new Set(texts).size < texts.length) return "The same choice twice.";
  return texts.length > CHOICES_MAX ? "Too many choices." : "";
}

/** The answers to send: those that were given. */
export function givenOf(fields, values) {
  const pairs = fields.map((field, index) => [field.key, kept(values[index])]);
  return Object.fromEntries(pairs.filter(([, value]) => value.length > 0)); // no assignment: a key may be __proto__
}

const kept = (value) => (Array.isArray(value) ? value.filter((text) => !isBlank(text)) : isBlank(value) ? "" : value);

/** An answer in one line, for the recap. */
export const wordsOfAnswer = (value) => [kept(value)].flat().join(", ") || "no answer";
