// The dashboard: follows one pool's events, keeps what it knows of it, and draws what has changed.
import { call, Problem } from "./api.js";
import { HOURS, makeChart } from "./chart.js";
import { makeConfirm } from "./confirm.js";
import { makeEvents } from "./events.js";
import { watchHealth } from "./health.js";
import { makePeople } from "./people.js";
import { makePlaces } from "./places.js";
import { $, setText } from "./rows.js";
import { makeSessions } from "./sessions.js";
import { Store } from "./store.js";
import { follow } from "./stream.js";

/** @typedef {import("./types.d.ts").Message} Message */
/** @typedef {import("./types.d.ts").StreamState} StreamState */
/** @typedef {"places" | "chart" | "people" | "sessions" | "events"} Part */

const DEFAULT_POOL = "main";
const PAGE_LENGTH = 1000;
const READ_AT_MOST = 10_000;
const ENDED_SHOWN = 200;
const TICK_MS = 1000;
const DRAW_EVERY_MS = 100;
const TABLE_EVERY_TICKS = 10;
const SAMPLES_EVERY_MS = 300_000;
const RETRY_MS = 3000;
const TOAST_MS = 8000;
const ENDS = new Set(["completed", "kicked", "abandoned"]);
const PILL = { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting", refused: "Stopped" };

const store = new Store();
let pool = new URLSearchParams(location.search).get("pool") ?? DEFAULT_POOL;
let stopFollowing = () => {};
let lastSeenMs = null;
/** Rises with each pool that is shown: what was asked for an earlier one is dropped. */
let turn = 0;

const now = () => store.serverTime(Date.now());
const places = makePlaces({ pool: () => pool, announce, failed: () => askHealth() });
const chart = makeChart(now);
const people = makePeople(store, { now, changed: () => touch("people") });
const events = makeEvents(() => touch("events"));
const sessions = makeSessions(store, { now, changed: () => touch("sessions"), announce, loadEnded });
makeConfirm(store, { pool: () => pool, say: toast });

/** @type {Record<Part, () => void>} */
const draw = {
  places: () => places.render(store.capacity),
  chart: chart.render,
  people: people.render,
  sessions: sessions.render,
  events: events.render,
};
/** @type {Set<Part>} */
const changed = new Set();
let isDue = false;
let drawnAt = -Infinity;

/** Draw these parts with a frame, soon: ten times a second is as much as anybody can read. @param {Part[]} parts */
function touch(...parts) {
  for (const part of parts) changed.add(part);
  if (isDue) return;
  isDue = true;
  setTimeout(() => requestAnimationFrame(drawChanged), Math.max(0, drawnAt + DRAW_EVERY_MS - performance.now()));
}

function drawChanged() {
  isDue = false;
  drawnAt = performance.now();
  const due = [...changed];
  changed.clear();
  for (const part of due) draw[part]();
}

/** @type {Record<string, (told: any) => void>} */
const TAKE = {
  capacity(capacity) {
    if (capacity.pool !== pool) return;
    store.setCapacity(capacity, Date.now());
    chart.add(capacity);
    touch("places", "chart");
  },
  session(session) {
    if (store.put(session, Date.now())) touch("people", "sessions");
  },
  session_gone({ session_id }) {
    store.gone(session_id);
    touch("people", "sessions");
  },
  line(line) {
    store.setLine(line);
    touch("people", "sessions");
  },
  reset: () => readAnew(),
};

/** @param {Message} message */
function take(message) {
  lastSeenMs = Date.now();
  const told = JSON.parse(message.data || "{}");
  const taker = TAKE[message.event];
  if (taker) return taker(told);
  events.add(told);
  touch("events");
  if (!ENDS.has(told.type)) return;
  store.end(told.session_id, told.type, Date.now());
  touch("people", "sessions");
}

/** @param {StreamState} state @param {Problem} [problem] */
function showState(state, problem) {
  const pill = $("connection");
  pill.dataset.state = state;
  setText(pill, PILL[state]);
  if (state === "refused") toast(problem.message, true);
  if (state === "reconnecting") askHealth();
}

/** What the stream does not tell: everything up to now. Until it works, or another pool is shown. */
async function readAnew() {
  const mine = turn;
  try {
    await Promise.all([readCapacity(mine), readSessions(mine), readSamples(mine)]);
  } catch (error) {
    if (mine !== turn) return;
    if (!(error instanceof Problem)) throw error;
    if (error.status !== 401 && error.status !== 404) setTimeout(() => mine === turn && readAnew(), RETRY_MS);
  }
}

/** @param {number} mine */
async function readCapacity(mine) {
  const capacity = await call("GET", "/v1/capacity", { params: { pool } });
  const isNews = !store.capacity || store.capacity.as_of < capacity.as_of;
  if (mine === turn && isNews) TAKE.capacity(capacity);
}

/** @param {number} mine */
async function readSessions(mine) {
  const askedMs = Date.now();
  const all = [];
  for (let cursor = ""; cursor !== null && all.length < READ_AT_MOST; ) {
    const params = { pool, status: "active", limit: PAGE_LENGTH, ...(cursor && { cursor }) };
    const page = await call("GET", "/v1/sessions", { params });
    all.push(...page.sessions);
    cursor = page.next_cursor;
  }
  if (mine !== turn) return;
  store.replaceActive(all, askedMs, Date.now());
  $("table").dataset.loaded = "true";
  touch("people", "sessions");
}

/** @param {number} mine */
async function readSamples(mine) {
  try {
    const recent = await call("GET", "/v1/analytics/recent", { params: { pool, hours: HOURS } });
    if (mine === turn) chart.setRecent(recent);
  } catch (error) {
    // Without samples the chart begins now.
    if (!(error instanceof Problem)) throw error;
  }
  touch("chart");
}

/** Those who ended lately, when somebody wants to see them. */
async function loadEnded() {
  const mine = turn;
  try {
    for (const status of ["completed", "abandoned"]) {
      const page = await call("GET", "/v1/sessions", { params: { pool, status, limit: ENDED_SHOWN } });
      if (mine !== turn) return;
      for (const session of page.sessions.reverse()) store.put(session, Date.now());
    }
    touch("sessions");
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    toast(error.message, true);
  }
}

/** @param {string} name */
function showPool(name) {
  turn += 1;
  pool = name;
  stopFollowing();
  store.clear();
  events.clear();
  chart.clear();
  places.reset();
  delete $("table").dataset.loaded;
  touch("people", "sessions", "events", "chart");
  document.title = `${name} · interview-presence`;
  const query = new URLSearchParams({ pool: name, with: "capacity,sessions,line" });
  stopFollowing = follow(`/v1/events?${query}`, { onOpen: readAnew, onMessage: take, onState: showState });
}

async function listPools() {
  const select = /** @type {HTMLSelectElement} */ ($("pool"));
  const names = await call("GET", "/v1/pools").then((answer) => answer.pools, () => []);
  const all = [...new Set([...names, pool])].sort();
  if (all.join("\n") === [...select.options].map((each) => each.value).join("\n")) return;
  select.replaceChildren(...all.map((name) => new Option(name, name, false, name === pool)));
}

/** To screen readers; nothing that changes by itself each second. @param {string} sentence */
function announce(sentence) {
  setText($("announcer"), "");
  setTimeout(() => setText($("announcer"), sentence), 50);
}

let toastTimer = 0;

/** @param {string} sentence @param {boolean} [isProblem] stays until it is closed */
function toast(sentence, isProblem = false) {
  clearTimeout(toastTimer);
  setText($("toast-text"), sentence);
  $("toast").classList.toggle("problem", isProblem);
  $("toast").hidden = false;
  announce(sentence);
  if (!isProblem) toastTimer = setTimeout(closeToast, TOAST_MS);
}

function closeToast() {
  $("toast").hidden = true;
}

/** @param {string} sentence */
function sayOnTop(sentence) {
  $("banner").hidden = !sentence;
  setText($("banner"), sentence);
}

let ticks = 0;

function tick() {
  ticks += 1;
  touch("people");
  if (ticks % TABLE_EVERY_TICKS === 0) touch("sessions", "chart");
}

$("pool").addEventListener("change", () => {
  const name = $("pool").value;
  history.replaceState(null, "", name === DEFAULT_POOL ? location.pathname : `?${new URLSearchParams({ pool: name })}`);
  showPool(name);
  announce(`Pool ${name}.`);
});
$("pool").addEventListener("focus", listPools);
$("toast-close").addEventListener("click", closeToast);
const askHealth = watchHealth({ say: sayOnTop, lastSeenMs: () => lastSeenMs });
listPools();
showPool(pool);
setInterval(tick, TICK_MS);
setInterval(() => readSamples(turn), SAMPLES_EVERY_MS);
setInterval(listPools, 30_000);
