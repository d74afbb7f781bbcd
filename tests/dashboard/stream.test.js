// Following the events: what happens when the stream ends, falls silent, or is refused.
import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

globalThis.addEventListener ??= () => {};
globalThis.removeEventListener ??= () => {};
const { follow } = await import("./stream.js");

const SILENT_MS = 40_000;
let requests;
let answers;
let heard;
let stop;

/** A stream whose text the test sends; it fails as fetch's does when it is aborted. */
function stream(signal) {
  let controller;
  const body = new ReadableStream({ start: (given) => (controller = given) });
  signal.addEventListener("abort", () => controller.error(new DOMException("aborted", "AbortError")));
  const send = (text) => controller.enqueue(new TextEncoder().encode(text));
  return { response: new Response(body, { headers: { "Content-Type": "text/event-stream" } }), send, end: () => controller.close() };
}

/** Let everything happen that waits for nothing. */
async function settle() {
  for (let turn = 0; turn < 30; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

async function elapse(ms) {
  mock.timers.tick(ms);
  await settle();
}

function start() {
  stop = follow("/v1/events?pool=main", {
    onOpen: () => heard.push("open"),
    onMessage: (message) => heard.push(message.data),
    onState: (state, problem) => heard.push(problem ? `${state}: ${problem.message}` : state),
  });
  return settle();
}

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout"] });
  [requests, answers, heard] = [[], [], []];
  globalThis.fetch = async (url, { headers, signal }) => {
    const answer = answers.shift() ?? stream(signal).response;
    requests.push({ url, headers });
    if (answer instanceof Error) throw answer;
    return typeof answer === "function" ? answer(signal) : answer;
  };
});

afterEach(async () => {
  stop();
  await settle();
  mock.timers.reset();
});

function takes() {
  let taken;
  answers.push((signal) => (taken = stream(signal)).response);
  return () => taken;
}

test("what comes is passed on, with the header that the cookie needs", async () => {
  const sent = takes();
  await start();
  sent().send('id: 1-0\nevent: granted\ndata: {"n":1}\n\n');
  await settle();
  assert.deepEqual(heard, ["connecting", "live", "open", '{"n":1}']);
  assert.equal(requests[0].headers["X-Presence-CSRF"], "1");
  assert.equal(requests[0].headers["Last-Event-ID"], undefined);
});

test("after the end it goes on behind the last event that had an id", async () => {
  const [first, second] = [takes(), takes()];
  await start();
  first().send("id: 7-1\ndata: a\n\nevent: capacity\ndata: b\n\n");
  await settle();
  first().end();
  await settle();
  assert.equal(heard.at(-1), "reconnecting");
  await elapse(10_000);
  assert.equal(requests[1].headers["Last-Event-ID"], "7-1");
  second().send("event: reset\ndata: {}\n\n");
  await settle();
  second().end();
  await settle();
  await elapse(10_000);
  assert.equal(requests[2].headers["Last-Event-ID"], undefined);
});

test("a comment is a sign of life, and silence for 40 seconds is the end", async () => {
  const sent = takes();
  await start();
  await elapse(SILENT_MS - 1);
  sent().send(": here\n\n");
  await settle();
  await elapse(SILENT_MS - 1);
  assert.equal(requests.length, 1);
  await elapse(1);
  assert.equal(heard.at(-1), "reconnecting");
  await elapse(10_000);
  assert.equal(requests.length, 2);
});

test("a server that is away is tried again, later and later but not for ever later", async () => {
  for (let number = 0; number < 40; number += 1) answers.push(new TypeError("fetch failed"));
  await start();
  for (let second = 0; second < 60; second += 1) await elapse(1000);
  assert.ok(requests.length >= 10, String(requests.length));
  assert.match(heard.at(-1), /^reconnecting: The server does not answer/);
});

test("what is refused for good is not asked again", async () => {
  const problem = { detail: "There is no pool named 'x'." };
  answers.push(new Response(JSON.stringify(problem), { status: 404 }));
  await start();
  await elapse(60_000);
  assert.deepEqual(heard, ["connecting", "refused: There is no pool named 'x'."]);
  assert.equal(requests.length, 1);
});

test("a busy server is asked again", async () => {
  answers.push(new Response("{}", { status: 503, headers: { "Retry-After": "2" } }));
  await start();
  await elapse(10_000);
  assert.equal(requests.length, 2);
  assert.equal(heard.at(-1), "open");
});

test("once it is ended nothing more is heard", async () => {
  const sent = takes();
  await start();
  stop();
  await settle();
  await elapse(60_000);
  assert.equal(requests.length, 1);
  assert.deepEqual(heard, ["connecting", "live", "open"]);
  assert.throws(() => sent().send("data: late\n\n"));
});
