// The line to the hub: one WebSocket, one status callback, and the only place that knows the token.
//
//   connecting > open(role) > closed (until retryAt) > connecting ...
//              > needs-token > connecting
//
// The token travels in the handshake (as a subprotocol) and in the Authorization header, never in a URL that is sent.
// Shown there, it needs none of the few places for those who have not shown theirs yet: no stranger can keep the operator
// out. A link for a looker-on has its token behind "#", which stays in the browser, and is taken out of the address here.

const BACKOFF_MIN_MS = 500;
const BACKOFF_MAX_MS = 15_000;
const SILENCE_MS = 12_000; // the hub sends its health every 1.5 s; eight missed mean a line that is dead, as after a laptop's sleep
const TOKEN_KEY = "caucus.token";
export const TOKEN_LINK = "#token=";

const CLOSE_REASONS = {
  1008: "The hub refused this page: its address is not among those the hub allows.",
  1013: "This page fell behind, or the hub has too many consoles.",
};

/**
 * Keep a line to the hub open. `onFrame(frame)` gets each frame of the room; `onStatus(status)` gets
 * `{state, since, role?, auth?, retryAt?, reason?, refused?}`.
 */
export function openLine({ onFrame, onStatus, url = lineUrl() }) {
  let socket = null;
  let failures = 0;
  let timer = null;
  let lostAt = Date.now(); // since when there is no open line
  let heardAt = 0;
  let offered = null; // {token, remember}: typed, not yet accepted
  let isGuarded = null; // whether the hub asks for tokens; null: it has not said so yet
  let state = "connecting";

  function report(next, more = {}) {
    state = next;
    onStatus({ state, since: lostAt, ...more });
  }

  function connect() {
    clearTimeout(timer);
    timer = null;
    report("connecting", { failures });
    const token = offered?.token ?? storedToken();
    const line = new WebSocket(url, token ? ["caucus", `caucus.token.${base64url(token)}`] : ["caucus"]);
    socket = line;
    line.onmessage = (event) => line === socket && hear(event.data);
    line.onclose = (event) => line === socket && lose(event.code);
  }

  function hear(data) {
    heardAt = Date.now();
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return; // not ours; the hub sends JSON only
    }
    if (Object.hasOwn(HANDSHAKE, frame?.type)) HANDSHAKE[frame.type](frame);
    else onFrame(frame);
  }

  const HANDSHAKE = {
    auth_ok: (frame) => {
      failures = 0;
      isGuarded = frame.auth;
      if (frame.auth && offered) storeToken(offered);
      offered = null;
      lostAt = Date.now();
      report("open", { role: frame.role, auth: frame.auth });
    },
    auth_required: () => report("needs-token", { refused: false }),
    auth_error: () => {
      if (offered === null) dropToken();
      offered = null;
      report("needs-token", { refused: true });
    },
  };

  function lose(code) {
    socket = null;
    if (state === "needs-token") return; // the next token opens a new line
    if (state === "open") lostAt = Date.now();
    else if (isGuarded !== false && !storedToken() && !offered) askWhetherGuarded();
    const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** failures);
    const wait = ceiling * (0.5 + Math.random() / 2); // jitter: many consoles must not come back as one
    failures += 1;
    timer = setTimeout(connect, wait);
    report("closed", { retryAt: Date.now() + wait, reason: CLOSE_REASONS[code] ?? "" });
  }

  /** The hub turned a handshake away, as it does when strangers throng at its door: ask for the token all the same. */
  async function askWhetherGuarded() {
    const answer = await fetch("/ui").then((response) => response.json()).catch(() => ({}));
    if (answer.auth !== true || state !== "closed") return;
    clearTimeout(timer);
    report("needs-token", { refused: false });
  }

  function drop() {
    const line = socket;
    if (!line) return;
    lose(1006); // from here on the old socket's events are nobody's
    line.close();
  }

  setInterval(() => {
    if (state === "open" && Date.now() - heardAt > SILENCE_MS) drop();
  }, 2_000);

  takeLinkedToken();
  connect();
  return {
    /** Send one command; false when there is no open line, so that the caller keeps what was typed. */
    send(frame) {
      if (state !== "open" || socket?.readyState !== WebSocket.OPEN) return false;
      socket.send(JSON.stringify(frame));
      return true;
    },
    /** Offer a token, on a new socket. */
    authenticate(token, remember) {
      offered = { token, remember };
      connect();
    },
    /** Try at once instead of waiting for the back-off. */
    retryNow() {
      if (state === "closed") connect();
    },
    /** Forget the token and come back as a stranger. */
    forget() {
      forgetToken();
      drop();
      connect();
    },
  };
}

/** Ask the hub; with the token, if this page holds one. Throws what the hub says against it. */
async function askHub(path, signal) {
  const token = storedToken();
  const response = await fetch(path, { headers: token ? { Authorization: `Bearer ${token}` } : {}, signal })
    .catch(() => { throw new Error("the hub is out of reach"); });
  if (response.ok) return response;
  throw new Error(wordsOf(await response.json().catch(() => ({}))) || `the hub answered ${response.status}`);
}

/** An export as a blob, and its file name. */
export async function fetchExport(path) {
  const response = await askHub(path);
  const named = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "");
  return { blob: await response.blob(), name: named?.[1] ?? "caucus-chat" };
}

/** A part of the past: `from` and `to` in Unix seconds, `after` so many entries. */
export async function fetchPast(query, signal) {
  const response = await askHub(`/replay?${new URLSearchParams(query)}`, signal);
  return response.json().catch(() => { throw new Error("the hub is out of reach"); }); // it went while it spoke
}

const ANSWER_MS = 20_000; // a hub that has not answered by then is asked again by hand
const AGAIN_MS = 500; // the record is busy, or is being indexed: it says to come again
const AGAIN_MAX = 12;

/** A page of the record, GET /history; an Error in words when there is none. */
export async function fetchHistory(query, isGuarded) {
  const token = isGuarded ? storedToken() : null; // an open hub would take it for a peer's
  for (let tries = 1; ; tries += 1) {
    const response = await fetch(`/history?${new URLSearchParams(query)}`, { headers: token ? { Authorization: `Bearer ${token}` } : {}, signal: AbortSignal.timeout(ANSWER_MS) })
      .catch((failure) => { throw new Error(failure.name === "TimeoutError" ? "the hub does not answer" : "the hub is out of reach"); });
    const body = await response.json().catch(() => ({}));
    if (response.ok && Array.isArray(body.messages)) return body;
    if (response.status !== 503 || tries === AGAIN_MAX) throw new Error(wordsOf(body) || `the hub answered ${response.status}`);
    await new Promise((resolve) => { setTimeout(resolve, AGAIN_MS); });
  }
}

/** What a refusal says: a text, or a list of faults. */
const wordsOf = ({ detail }) => (Array.isArray(detail) ? String(detail[0]?.msg ?? "").replace(/^q: /, "") : String(detail ?? ""));

/** A text as base64 in the alphabet of URLs: what a subprotocol's name may be made of. */
function base64url(text) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function lineUrl() {
  return `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/ui?changes=1`;
}

function storedToken() {
  return sessionStorage.getItem(TOKEN_KEY) ?? localStorage.getItem(TOKEN_KEY);
}

/** Take the token of a link into this tab; what the browser remembers besides stays. */
function takeLinkedToken() {
  if (!location.hash.startsWith(TOKEN_LINK)) return;
  const token = location.hash.slice(TOKEN_LINK.length);
  history.replaceState(null, "", location.pathname + location.search);
  if (token) sessionStorage.setItem(TOKEN_KEY, token);
}

/** Forget the token that was shown and refused: that of this tab, else the one of the browser. */
function dropToken() {
  (sessionStorage.getItem(TOKEN_KEY) === null ? localStorage : sessionStorage).removeItem(TOKEN_KEY);
}

function storeToken({ token, remember }) {
  forgetToken();
  (remember ? localStorage : sessionStorage).setItem(TOKEN_KEY, token);
}

function forgetToken() {
  sessionStorage.removeItem(TOKEN_KEY);
  localStorage.removeItem(TOKEN_KEY);
}
