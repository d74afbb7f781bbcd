// What the watcher does with what it hears. `component.js` is made by the test: messages.js and watcher.js in one.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { call, elapse, listening, root, say, world } from "./browser_world.js";
import watch from "./component.js";

const texts = { elsewhere: "In another tab", continue_here: "Here" };
let at = 1;
let end;

const interview = (state, more) => say({ name: "interview", at: ++at, detail: { state, ...more } });
const know = (standing, position = null) => (end = call(watch, { session: "s", known: { standing, position }, texts }));

beforeEach(() => {
  end?.();
  Object.assign(world, { posted: [], triggered: [], hidden: false, room: undefined });
  world.timers.clear();
});

for (const [known, said, ms] of [
  ["line", "granted", 0],
  ["granted", "none", 300],
  ["granted", "waiting", 300],
  ["line", "none", 300],
  ["out", "granted", 300],
  ["out", "waiting", null],
  [null, "granted", null],
  ["granted", "granted", null],
  ["line", "offered", null],
]) {
  test(`known ${known}, said ${said}: ${ms === null ? "no rerun" : `a rerun in ${ms} ms`}`, () => {
    know(known);
    interview(said);
    assert.deepEqual(elapse(), ms === null ? [] : [ms]);
    assert.equal(world.triggered.length, ms === null ? 0 : 1);
  });
}

test("one message causes one rerun, however often it is repeated and whatever Python knows then", () => {
  know("line");
  interview("granted");
  elapse();
  know("line");
  say({ name: "interview", at, detail: { state: "granted" } });
  assert.deepEqual(elapse(), []);
  assert.equal(world.triggered.length, 1);
});

test("what Python has learnt meanwhile causes none", () => {
  know("out");
  interview("granted");
  know("granted");
  say({ name: "interview", at, detail: { state: "granted" } });
  assert.deepEqual(elapse(), []);
});

test("a moved place reruns an app that shows it as text, not one with a waiting room, and not each second", () => {
  know("line", 3);
  interview("waiting", { position: 2 });
  interview("waiting", { position: 1 });
  const [wait, ...others] = elapse();
  assert.ok(wait > 2900 && wait <= 3000);
  assert.deepEqual(others, []);
  know("line", 3);
  world.room = {};
  interview("waiting", { position: 1 });
  assert.deepEqual(elapse(), []);
});

test("an absent person's page waits until they are back", () => {
  world.hidden = true;
  know("line");
  interview("granted");
  assert.deepEqual(elapse(), []);
  world.hidden = false;
  world.onVisibility();
  assert.deepEqual(elapse(), [0]);
});

test("other origins, other senders and other sessions are not heard", () => {
  know("line");
  const granted = { name: "interview", at: ++at, detail: { state: "granted" } };
  say(granted, "https://evil.example");
  say({ ...granted, source: "other" });
  say({ ...granted, session: "t" });
  assert.deepEqual(elapse(), []);
});

test("an older message does not undo a newer one", () => {
  know("line");
  interview("granted");
  say({ name: "interview", at: at - 1, detail: { state: "waiting" } });
  assert.deepEqual(elapse(), [0]);
  assert.equal(world.triggered[0][1].standing, "granted");
});

test("another tab's take-over is said, and may be undone here", () => {
  know("granted");
  say({ name: "ended", at: ++at, detail: { reason: "taken_over" } });
  assert.deepEqual(elapse(), [0]);
  assert.equal(root.querySelector("section").hidden, false);
  assert.equal(world.styles.position, "");
  root.querySelector("button").onclick();
  assert.deepEqual(world.posted.at(-1), ["resume", "https://app.example"]);
  know("elsewhere");
  interview("granted");
  assert.deepEqual(elapse(), [0]);
  assert.equal(root.querySelector("section").hidden, true);
});

test("it takes no room while there is nothing to say", () => {
  know("granted");
  assert.equal(world.styles.position, "absolute");
});

test("called again it listens once, and at its end no more; a late end of an older call ends no newer one", () => {
  const first = know("line");
  const second = know("line");
  first();
  assert.equal(listening(), 1);
  interview("granted");
  second();
  assert.equal(listening(), 0);
  assert.deepEqual(elapse(), []);
});
