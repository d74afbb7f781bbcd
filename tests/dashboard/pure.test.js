// The parts of the dashboard that need no page: parsing, wording, what is known, what is shown.
import assert from "node:assert/strict";
import { test } from "node:test";
import { joined, niceMaximum, pointAt } from "./chart.js";
import { sentenceOf } from "./events.js";
import { about, ago, clock, count, languageName, wait } from "./format.js";
import { sentenceFor } from "./health.js";
import { previewOf } from "./places.js";
import { matches, sorted } from "./sessions.js";
import { createParser } from "./sse.js";
import { Store, stateOf } from "./store.js";
import { delayMs } from "./stream.js";

function parsed(...pieces) {
  const messages = [];
  const feed = createParser((message) => messages.push(message));
  pieces.forEach(feed);
  return messages;
}

function session(id, more = {}) {
  const nothing = { language_code: null, current_page: null, interview_started_at: null, interview_ended_at: null };
  const interview = { state: "none" };
  const times = { started_at: "2026-01-01T10:00:00.000Z", last_seen: "2026-01-01T10:00:00.000Z" };
  return { session_id: id, user_id: id, status: "active", online: true, version: 1, interview, ...nothing, ...times, ...more };
}

test("messages come out whole, however the text is cut", () => {
  const text = ': hello\n\nid: 5-0\nevent: granted\ndata: {"a":\ndata: 1}\n\ndata:x\r\n\r\nevent: nothing\n\n';
  const expected = [
    { id: "5-0", event: "granted", data: '{"a":\n1}' },
    { id: null, event: "message", data: "x" },
  ];
  assert.deepEqual(parsed(text), expected);
  assert.deepEqual(parsed(...text), expected);
  for (let cut = 1; cut < text.length; cut += 1) assert.deepEqual(parsed(text.slice(0, cut), text.slice(cut)), expected);
});

test("an id belongs to its own message only", () => {
  assert.deepEqual(parsed("id: 1\ndata: a\n\ndata: b\n\n").map((each) => each.id), ["1", null]);
});

test("half a message is none", () => {
  assert.deepEqual(parsed("data: a\n"), []);
});

test("the delay has jitter and a bound", () => {
  assert.equal(delayMs(0, () => 0), 250);
  assert.equal(delayMs(3, () => 1), 250 + 4000);
  assert.equal(delayMs(50, () => 1), 250 + 5000);
});

test("durations are said as people say them", () => {
  assert.equal(clock(0), "0:00");
  assert.equal(clock(247.9), "4:07");
  assert.equal(clock(3750), "1:02:30");
  assert.equal(clock(-5), "0:00");
  assert.deepEqual([5, 89, 90, 5399, 5400, 200_000].map(about), ["5 s", "89 s", "2 min", "90 min", "2 h", "2 d"]);
  assert.deepEqual([3, 59, 60, 600].map(ago), ["just now", "just now", "1 min ago", "10 min ago"]);
  assert.equal(wait(null, null), "unknown");
  assert.equal(wait(300, 900), "about 5 min, at most 15 min");
  assert.equal(count(1, "session"), "1 session");
  assert.equal(count(0, "session"), "0 sessions");
});

test("languages have names, and what is none stays as it is", () => {
  assert.deepEqual(["de", "sq", "pt-BR", "x!", null].map(languageName), ["German", "Albanian", "Brazilian Portuguese", "x!", ""]);
});

test("where a session stands is one word", () => {
  const inInterview = { interview: { state: "granted" } };
  assert.equal(stateOf(session("a")), "here");
  assert.equal(stateOf(session("a", { online: false })), "away");
  assert.equal(stateOf(session("a", { online: false, ...inInterview })), "granted");
  assert.equal(stateOf(session("a", { status: "completed", ...inInterview })), "completed");
});

test("older news of a session changes nothing", () => {
  const store = new Store();
  store.put(session("a", { version: 5 }), 1000);
  assert.equal(store.put(session("a", { version: 4, online: false }), 1001), false);
  assert.equal(store.put(session("a", { version: 5, online: false }), 1002), true);
  assert.equal(store.sessions.get("a").online, false);
});

test("who is not in the list is gone, but for those of whom something was heard since it was asked for", () => {
  const store = new Store();
  store.put(session("gone"), 1000);
  store.put(session("ended", { status: "completed" }), 1000);
  store.put(session("kept", { online: false }), 1000);
  store.put(session("new"), 2001);
  store.put(session("fresh", { online: false }), 2001);
  store.replaceActive([session("kept"), session("fresh"), session("more")], 2000, 2500);
  assert.deepEqual([...store.sessions.keys()].sort(), ["ended", "fresh", "kept", "more", "new"]);
  assert.equal(store.sessions.get("kept").online, true);
  assert.equal(store.sessions.get("fresh").online, false);
});

test("ended sessions are kept up to a bound, the oldest go first", () => {
  const store = new Store();
  for (let number = 0; number < 600; number += 1) store.put(session(`s${number}`, { status: "completed" }), number);
  assert.equal(store.sessions.size, 500);
  assert.ok(!store.sessions.has("s99"));
  assert.ok(store.sessions.has("s100"));
});

test("without a history an event is the last that is heard of who has ended; what is forgotten is gone", () => {
  const store = new Store();
  for (const id of ["a", "b", "c"]) store.put(session(id), 1000);
  store.end("a", "kicked", 1001);
  store.end("b", "completed", 1001);
  store.gone("a");
  store.put(session("b", { status: "completed", version: 2 }), 1002);
  store.gone("c");
  assert.deepEqual([...store.sessions.values()].map((each) => each.status), ["abandoned", "completed"]);
  for (const id of ["a", "b"]) store.gone(id);
  assert.equal(store.sessions.size, 0);
});

test("the server's time is what the least delayed message says", () => {
  const store = new Store();
  const told = (ms) => ({ as_of: new Date(ms).toISOString() });
  store.setCapacity(told(10_000), 5200);
  store.setCapacity(told(11_000), 6050);
  store.setCapacity(told(12_000), 9000);
  assert.equal(store.serverTime(0), 4950);
});

test("a search finds words of user, session, page and language in any order", () => {
  const all = { search: "", state: "active", page: "", language: "" };
  const anna = session("s-17", { user_id: "Anna", current_page: "learning", language_code: "de" });
  for (const search of ["anna", "S-17", "german anna", "learn", ""]) assert.ok(matches(anna, { ...all, search }), search);
  assert.ok(!matches(anna, { ...all, search: "anna dutch" }));
  assert.ok(!matches(anna, { ...all, page: "home" }));
  assert.ok(matches(anna, { ...all, page: "learning", language: "de", state: "here" }));
  assert.ok(!matches(anna, { ...all, state: "ended" }));
  assert.ok(matches({ ...anna, status: "abandoned" }, { ...all, state: "ended" }));
});

test("the order is the one asked for, and among equals the newest comes first", () => {
  const at = (minute) => ({ started_at: `2026-01-01T10:0${minute}:00.000Z` });
  const all = [session("b", at(1)), session("A", at(2)), session("c", { ...at(3), interview: { state: "granted" } })];
  const ids = (by, direction) => sorted(all, by, direction).map((each) => each.session_id).join("");
  assert.equal(ids("started", "desc"), "cAb");
  assert.equal(ids("started", "asc"), "bAc");
  assert.equal(ids("user", "asc"), "Abc");
  assert.equal(ids("state", "asc"), "cAb");
  assert.equal(ids("page", "asc"), "cAb");
});

test("a new limit says beforehand what it does", () => {
  const now = { limit: 3, active: 2, offered: 1, waiting: 4, mode: "open", recovering: false };
  assert.equal(previewOf(now, 5), "Lets 2 of the 4 waiting in at once, if they are ready.");
  assert.equal(previewOf({ ...now, mode: "paused" }, 5), "2 places would be free.");
  assert.equal(previewOf(now, 1), "Nobody is thrown out: 2 places less as soon as they are free.");
  assert.equal(previewOf({ ...now, waiting: 0 }, 4), "1 place would be free.");
});

test("the banner says what matters most", () => {
  const well = { ready: true, redis: "ok", postgres: "ok", recovering: false, draining: false, backlog: 0 };
  assert.equal(sentenceFor(well, null), "");
  assert.match(sentenceFor(null, null), /does not answer/);
  assert.match(sentenceFor({ ...well, redis: "down", recovering: true }, 0), /^Redis is away: .* What you see is from/);
  assert.match(sentenceFor({ ...well, recovering: true }, 0), /lost its memory/);
  assert.match(sentenceFor({ ...well, postgres: "down", backlog: 1 }, 0), /1 session waits to be written/);
});

test("events read as sentences, also those of a newer server", () => {
  const event = { seq: 1, epoch: "e", at: "2026-01-01T10:00:00.000Z" };
  assert.equal(sentenceOf({ ...event, type: "granted", user_id: "anna" }), "anna is in the interview");
  assert.equal(sentenceOf({ ...event, type: "released", user_id: "anna", cause: "max_length" }), "anna no longer holds a place (max length)");
  assert.equal(sentenceOf({ ...event, type: "pool_changed", actor: "dashboard" }), "The pool was changed (dashboard)");
  assert.equal(sentenceOf({ ...event, type: "connected", user_id: "anna", cause: "new" }), "anna is connected");
  assert.equal(sentenceOf({ ...event, type: "was_seen", session_id: "s1" }), "s1 was seen");
});

test("the chart's scale ends at a round number", () => {
  assert.deepEqual([0, 1, 2, 3, 7, 11, 45, 101, 499].map(niceMaximum), [2, 2, 2, 4, 8, 20, 60, 200, 600]);
});

test("samples and what came since make one line, which begins before the window", () => {
  const point = (at) => ({ at, online: at, in_interview: 0, waiting: 0, limit: 1 });
  const all = joined([10, 20, 30].map(point), [25, 30, 35].map(point), 22).map((each) => each.at);
  assert.deepEqual(all, [20, 30, 35]);
  assert.deepEqual(joined([], [], 5), []);
  assert.equal(pointAt([10, 20].map(point), 19).at, 10);
  assert.equal(pointAt([10, 20].map(point), 5).at, 10);
});
