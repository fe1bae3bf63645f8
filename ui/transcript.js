// Transcript: messages as a file, in the words of the hub's own export. Pure.

export const FORMATS = { json: ["json", "application/json"], markdown: ["md", "text/markdown"], text: ["txt", "text/plain"] };

/** `messages` as the text of a file. */
export function transcriptOf(messages, format, { utc = false, version = null } = {}) {
  return { json: asJson, markdown: asMarkdown, text: asText }[format](messages, utc, version);
}

const isMarker = (message) => message.kind === "marker"; // a line of the console itself, where messages are missing
const said = (messages) => messages.filter((message) => !isMarker(message));

function asJson(messages, utc, version) {
  const missing = messages.filter(isMarker).map(({ content }) => content);
  return JSON.stringify({ version, count: said(messages).length, ...(missing.length && { missing }), messages: said(messages) }, null, 2);
}

const two = (number) => String(number).padStart(2, "0");

function timeOf(ts, utc) {
  const when = new Date(ts * 1000);
  if (utc) return `${when.toISOString().slice(0, 19).replace("T", " ")} UTC`;
  return `${when.getFullYear()}-${two(when.getMonth() + 1)}-${two(when.getDate())} ${two(when.getHours())}:${two(when.getMinutes())}:${two(when.getSeconds())}`;
}

/** One message with its heading, for the clipboard and the file. The text is its author's own Markdown. */
export function markdownOf(message, utc = false) {
  const kind = message.kind === "message" ? "" : ` · ${message.kind}`;
  const lines = message.content.split(/\r\n|[\n\r\x0b\f\x1c-\x1e\x85\u2028\u2029]/).map((line) => (line.startsWith("**") ? `\\${line}` : line)); // no forged entries
  const body = lines.map((line) => (message.origin === "hub" ? `> ${line}` : line)).join("\n");
  return `**${message.sender}** → ${message.recipient} · ${timeOf(message.ts, utc)}${kind}\n\n${body}`;
}

const asMarkdown = (messages, utc) => [`# Caucus transcript`, `${said(messages).length} messages`,
  ...messages.map((message) => (isMarker(message) ? `---\n\n${message.content}\n\n---` : markdownOf(message, utc)))].join("\n\n") + "\n";

const asText = (messages, utc) => messages.map((message) => (isMarker(message) ? `--- ${message.content}\n` : lineOf(message, utc))).join("");

const lineOf = ({ ts, sender, recipient, kind, content }, utc) => `[${timeOf(ts, utc)}] ${sender} -> ${recipient}${kind === "message" ? "" : ` (${kind})`}: ${content.split(/\s+/).filter(Boolean).join(" ")}\n`;
