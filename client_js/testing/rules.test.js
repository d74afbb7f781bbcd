import assert from "node:assert/strict";
import { test } from "node:test";
import { backoff, claims, clean, closed, newest, owed, refused, settled } from "../client.js";
import { token } from "./world.js";

const loss = (fields = {}) => ({ up: 0, failures: 0, hint: 0, random: () => 0.5, ...fields });

test("back-off is spread over the whole range, evenly", () => {
  const buckets = new Array(10).fill(0);
  for (let i = 0; i < 20_000; i++) buckets[Math.floor(backoff(2, Math.random) / 400)]++;
  for (const count of buckets) assert.ok(Math.abs(count - 2000) < 300, `uneven: ${buckets}`);
});

test("the bound of the back-off doubles with each failure and stops at 30 s", () => {
  const bounds = [0, 1, 2, 3, 4, 5, 6, 1000].map((failures) => backoff(failures, () => 1));
  assert.deepEqual(bounds, [1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
});

test("failures add up until a connection lasted 5 s", () => {
  assert.equal(closed(1006, loss({ failures: 3, up: 0 })).failures, 4);
  assert.equal(closed(1006, loss({ failures: 3, up: 4999 })).failures, 4);
  assert.equal(closed(1006, loss({ failures: 3, up: 5000 })).failures, 0);
});

test("the server's hint comes before the jitter", () => {
  assert.equal(closed(4030, loss({ hint: 5000, failures: 0 })).wait, 5000 + 1000);
});

test("a socket that went silent after a good while is replaced at once, one that never answered is not", () => {
  assert.equal(closed(0, loss({ up: 60_000 })).wait, 0);
  assert.ok(closed(0, loss({ up: 0 })).wait > 0);
});

for (const code of [4000, 4008, 4029, 4030, 4031, 4099, 1000, 1001, 1005, 1006, 1011, 1012, 1013, 1015, 3000]) {
  test(`close code ${code} comes back`, () => assert.equal(closed(code, loss()).reason, undefined));
}
for (const [code, reason] of Object.entries({
  1003: "ended", 1009: "ended", 4400: "ended", 4401: "ended", 4408: "ended", 4409: "taken_over", 4410: "ended", 4426: "ended", 4555: "ended",
})) {
  test(`close code ${code} stays away: ${reason}`, () => assert.deepEqual(closed(Number(code), loss()), { reason }));
}

test("the server's own word for an end is kept", () => {
  assert.equal(closed(4410, loss({ text: "completed" })).reason, "completed");
  assert.equal(closed(4409, loss({ text: "taken over by another tab" })).reason, "taken_over");
});

test("only what the server does not know is owed", () => {
  const wanted = { page: "a", visible: true, watch: false, wish: null };
  assert.deepEqual(owed(wanted, { page: "a", visible: true }), []);
  const wish = { type: "enter" };
  assert.deepEqual(
    owed({ page: "b", visible: false, watch: true, wish }, { page: "a", visible: true }),
    [{ type: "page", page: "b" }, { type: "visible", visible: false }, { type: "watch" }, wish],
  );
  assert.deepEqual(owed({ ...wanted, wish }, { ...wanted, wish }), []);
  assert.deepEqual(owed(wanted, { ...wanted, watch: true }), [{ type: "unwatch" }]);
});

test("a wish is settled by an answer to it, not by news from before", () => {
  assert.equal(settled({ type: "enter" }, { state: "none" }), false);
  for (const state of ["waiting", "offered", "granted", "denied"]) assert.equal(settled({ type: "enter" }, { state }), true);
  assert.equal(settled({ type: "leave" }, { state: "granted" }), false);
  assert.equal(settled({ type: "leave" }, { state: "none" }), true);
  assert.equal(settled({ type: "complete" }, { state: "none", reason: "released" }), false);
  assert.equal(settled({ type: "complete" }, { state: "none", reason: "completed" }), true);
  assert.equal(settled({ type: "accept" }, { state: "none" }), true);
  assert.equal(settled({ type: "accept" }, { state: "offered" }), false);
});

test("the kept token is preferred for the same session only, and only when not older", () => {
  const [old, young, other] = [token("s", 10), token("s", 20), token("o", 30)];
  assert.equal(newest(old, young), young);
  assert.equal(newest(young, old), young);
  assert.equal(newest(old, other), old);
  assert.equal(newest(undefined, young), young);
  assert.equal(newest(old, null), old);
  assert.equal(newest(old, ""), old);
  assert.equal(newest("rubbish", "more rubbish"), "rubbish");
  assert.equal(newest("rubbish", young), "rubbish");
});

test("a token whose payload needs the URL alphabet of base64 is read", () => {
  const name = "ÿþ?>~~~";
  const [old, young] = [token("s", 1, { uid: name }), token("s", 2, { uid: name })];
  assert.match(old.split(".")[1], /[-_]/);
  assert.equal(newest(old, young), young);
});

test("what an HTTP answer says is what a close code would have", () => {
  const ended = { status: 410, code: "session_ended", detail: "The session has ended (kicked). Open a new one to go on." };
  assert.deepEqual(refused(ended), { code: 4410, reason: "kicked" });
  assert.deepEqual(refused({ status: 401, code: "token_expired", detail: "" }), { code: 4401, reason: "token_expired" });
  assert.deepEqual(refused({ status: 404, code: "unknown_session", detail: "" }), { code: 4401, reason: "unknown_session" });
  for (const status of [409, 422, 429, 500, 503]) {
    const { code } = refused({ status, code: "c", detail: "" });
    assert.equal(closed(code, loss()).reason, undefined, String(status));
  }
});

test("a page name holds what the server takes: no control characters, no half of a pair, 200 characters", () => {
  assert.equal(clean("a\nb\x7f"), "a b ");
  assert.equal(clean("\u{1f600}\ud800"), "\u{1f600} ");
  assert.equal(clean("x".repeat(300)).length, 200);
  assert.equal(clean(7), "7");
  assert.equal(clean(null), undefined);
  assert.equal(clean(undefined), undefined);
});

test("a token says whose it is", () => assert.equal(claims(token("s", 10)).sub, "s"));
