import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { connect } from "../client.js";
import { Locks, World, record, settle, token } from "./world.js";

const TOKEN = token("s", 10);

function open(world, options = { token: TOKEN }) {
  const presence = connect({ url: "https://p.example", ...options }, world);
  return { presence, world, heard: record(presence) };
}

function tabOf(locks, stored) {
  const world = new World(stored);
  world.navigator.locks = locks;
  return world;
}

async function until(condition) {
  for (let i = 0; i < 300 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.ok(condition());
}

describe("whose tab it is", () => {
  test("a duplicated tab, with a copy of the storage, takes an id of its own and keeps it", async () => {
    const locks = new Locks();
    const first = open(tabOf(locks));
    await settle();
    const original = first.world.socket.welcome().tab;
    const copy = open(tabOf(locks, { ...first.world.stored }));
    copy.world.chance = 0.25;
    await until(() => copy.world.socket);
    const { tab } = copy.world.socket.welcome();
    assert.notEqual(tab, original);
    copy.world.fire("pagehide");
    const reloaded = open(tabOf(locks, copy.world.stored));
    await settle();
    assert.equal(reloaded.world.socket.welcome().tab, tab);
  });

  test("a page that goes gives the id back at once: a reload keeps it", async () => {
    const locks = new Locks();
    const first = open(tabOf(locks));
    await settle();
    const { tab } = first.world.socket.welcome();
    first.world.fire("pagehide");
    const second = open(tabOf(locks, first.world.stored));
    await settle();
    assert.equal(second.world.socket.welcome().tab, tab);
  });

  test("a page that goes before it got the id does not hold it", async () => {
    const locks = new Locks();
    const { world, presence } = open(tabOf(locks));
    presence.close();
    await settle();
    assert.equal(locks.held.size, 0);
    assert.equal(world.sockets.length, 0);
  });

  test("locks that are forbidden, or missing, are done without", async () => {
    const locks = { request: async () => { throw new DOMException("no", "SecurityError"); } };
    const { world, presence } = open(tabOf(locks));
    await settle();
    world.socket.welcome();
    assert.equal(presence.state, "online");
    const without = open(new World());
    without.world.socket.welcome();
    assert.equal(without.presence.state, "online");
  });
});

describe("continue here", () => {
  test("resume connects again after a take-over, also with what was asked meanwhile", () => {
    const { world, presence, heard } = open(new World());
    world.socket.welcome();
    world.socket.drop(4409);
    presence.resume();
    assert.equal(presence.state, "connecting");
    assert.equal(world.socket.welcome().token, TOKEN);
    assert.equal(presence.state, "online");
    assert.deepEqual(heard.map(([name]) => name), ["online", "interview", "ended", "online", "interview"]);
    world.fire("pagehide");
    assert.equal(world.socket.closedWith, 1000);
  });

  test("resume connects again after close, and does nothing to a page that is connected", () => {
    const { world, presence } = open(new World());
    world.socket.welcome();
    presence.resume();
    assert.equal(world.sockets.length, 1);
    presence.close();
    presence.resume();
    world.socket.welcome();
    assert.equal(presence.state, "online");
    assert.equal(world.sockets.length, 2);
  });

  test("resume without anything to go on with does nothing", () => {
    const { world, presence } = open(new World(), { revive: true });
    presence.resume();
    assert.equal(presence.state, "ended");
    assert.equal(world.sockets.length, 0);
  });
});

describe("reviving", () => {
  test("the session that the tab has kept goes on, without a token in the page", () => {
    const { world } = open(new World());
    world.socket.welcome();
    world.fire("pagehide");
    const { world: reloaded, presence } = open(new World(world.stored), { revive: true });
    assert.equal(reloaded.socket.welcome().token, TOKEN);
    assert.equal(presence.state, "online");
  });

  test("where there is none it is ended without a word", () => {
    const { world, presence, heard } = open(new World(), { revive: true });
    world.pass(60_000);
    assert.equal(presence.state, "ended");
    assert.deepEqual([heard, world.warnings, world.sockets.length], [[], [], 0]);
  });

  test("one that has ended is not revived", () => {
    const { world } = open(new World());
    world.socket.welcome();
    world.socket.drop(4410, "completed");
    assert.equal(open(new World(world.stored), { revive: true }).presence.state, "ended");
  });
});
