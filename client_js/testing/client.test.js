import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { connect, presence as started } from "../client.js";
import { NONE, World, record, settle, token } from "./world.js";

const TOKEN = token("s", 10);

function start(options = {}, world = new World()) {
  const presence = connect({ url: "https://p.example", token: TOKEN, page: "home", ...options }, world);
  return { presence, world, heard: record(presence), socket: world.socket };
}

function online(options, world) {
  const all = start(options, world);
  all.hello = all.socket.welcome();
  return all;
}

const names = (heard) => heard.map(([name]) => name);

describe("connecting", () => {
  test("nothing starts by itself without a script tag", () => assert.equal(started, undefined));

  for (const [url, address] of Object.entries({
    "https://p.example": "wss://p.example/ws",
    "http://localhost:8000/": "ws://localhost:8000/ws",
    "https://x.example/presence": "wss://x.example/presence/ws",
    "https://x.example/news": "wss://x.example/news/ws",
    "wss://x.example/ws": "wss://x.example/ws",
  })) {
    test(`${url} is reached at ${address}`, () => assert.equal(start({ url }).socket.url, address));
  }

  test("says hello with token, tab, attempt, page and visibility, in the protocol presence.v1", () => {
    const { hello, world, socket, presence, heard } = online();
    const { tab, ...rest } = hello;
    assert.equal(socket.protocol, "presence.v1");
    assert.deepEqual(rest, { type: "hello", token: TOKEN, attempt: world.clock, page: "home", visible: true });
    assert.match(tab, /^[a-z0-9]{1,64}$/);
    assert.equal(presence.state, "online");
    assert.deepEqual(heard, [["online", undefined], ["interview", NONE]]);
  });

  test("the token is never in the address", () => assert.ok(!start().socket.url.includes(TOKEN)));

  test("is connecting until the welcome, not only until the socket opens", () => {
    const { presence, socket } = start();
    assert.equal(presence.state, "connecting");
    socket.accept();
    assert.equal(presence.state, "connecting");
    socket.say("welcome", { heartbeat_s: 20, interview: NONE });
    assert.equal(presence.state, "online");
  });

  test("a page that was set meanwhile is told after the welcome", () => {
    const { presence, socket } = start();
    socket.accept();
    presence.setPage("learning");
    assert.deepEqual(socket.types(), ["hello"]);
    socket.say("welcome", { heartbeat_s: 20, interview: NONE });
    assert.deepEqual(socket.sent.at(-1), { type: "page", page: "learning" });
  });

  test("what no page name may hold becomes spaces, also half a character where the cut falls", () => {
    const { presence, socket } = online();
    presence.setPage("two\nlines \u{1f600}");
    presence.setPage("x".repeat(199) + "\u{1f600}");
    assert.deepEqual(socket.sent.slice(1).map(({ page }) => page), ["two lines \u{1f600}", "x".repeat(199) + " "]);
  });

  test("a page name is cut to what the server takes", () => {
    const { presence, socket } = online({ page: 7 });
    presence.setPage("x".repeat(300));
    presence.setPage(null);
    assert.equal(socket.sent[0].page, "7");
    assert.deepEqual(socket.sent.slice(1), [{ type: "page", page: "x".repeat(200) }]);
  });
});

describe("heartbeats", () => {
  test("come every heartbeat_s, numbered, and only one is unanswered", () => {
    const { world, socket } = start();
    socket.welcome({ heartbeat_s: 4 });
    world.pass(4000);
    assert.deepEqual(socket.sent.at(-1), { type: "heartbeat", seq: 1, visible: true });
    world.pass(4000);
    assert.equal(socket.sent.at(-1).seq, 1);
    socket.say("ack", { seq: 1 });
    world.pass(4000);
    assert.equal(socket.sent.at(-1).seq, 2);
  });

  test("a socket whose ack is 10 s late is dropped and replaced at once", () => {
    const { presence, world, socket, heard } = online();
    world.pass(20_000 + 9999);
    assert.equal(presence.state, "online");
    world.pass(1);
    assert.equal(socket.closedWith, 1000);
    assert.equal(presence.state, "offline");
    world.pass(0);
    assert.equal(world.sockets.length, 2);
    world.socket.welcome();
    assert.deepEqual(names(heard), ["online", "interview", "offline", "online", "interview"]);
  });

  test("what the dropped socket still says is not heard", () => {
    const { world, socket, heard } = online();
    world.pass(30_000);
    const before = heard.length;
    socket.say("interview", { state: "granted" });
    socket.drop();
    assert.equal(heard.length, before);
    assert.equal(world.sockets.length, 2);
  });

  test("a server that opens and then says nothing is given up after 10 s", () => {
    const { world, socket } = start();
    socket.accept();
    world.pass(10_000);
    assert.equal(socket.closedWith, 1000);
    world.pass(2000);
    assert.equal(world.sockets.length, 2);
  });
});

describe("coming back", () => {
  test("waits a random time that grows, and says offline once", () => {
    const { world, heard, presence } = online();
    world.socket.drop();
    assert.deepEqual(world.timers, [1000]); // half of 2 s: it had not lasted 5 s
    world.pass(1000);
    world.socket.drop();
    assert.deepEqual(world.timers, [2000]);
    world.pass(2000);
    assert.equal(presence.state, "offline");
    assert.equal(names(heard).filter((name) => name === "offline").length, 1);
  });

  test("starts anew after 5 s of a good connection", () => {
    const { world, socket } = online();
    world.pass(5000);
    socket.drop();
    assert.deepEqual(world.timers, [500]);
  });

  test("obeys retry_in_ms and tells the page why", () => {
    const { world, socket, heard } = online();
    world.pass(5000);
    socket.say("error", { code: "redis_away", message: "Reconnecting", retry_in_ms: 7000 });
    socket.drop(4031);
    assert.equal(world.timers.at(-1), 7500);
    world.pass(7499);
    assert.equal(world.sockets.length, 1);
    assert.deepEqual(heard[2], ["error", { code: "redis_away", message: "Reconnecting", retry_in_ms: 7000 }]);
  });

  test("each connection of a tab has a higher attempt, over reloads and when the clock stands", () => {
    const { hello, world } = online();
    world.clock -= 5000;
    world.socket.drop();
    world.pass(1000);
    const second = world.socket.welcome();
    const reloaded = new World(world.stored);
    reloaded.clock = 5;
    const third = online({}, reloaded).hello;
    assert.equal(second.tab, hello.tab);
    assert.equal(third.tab, hello.tab);
    assert.ok(hello.attempt < second.attempt && second.attempt < third.attempt);
  });

  for (const wakeUp of ["online", "visibilitychange"]) {
    test(`${wakeUp} brings it back at once`, () => {
      const { world, socket } = online();
      socket.drop();
      world.fire(wakeUp);
      assert.equal(world.sockets.length, 2);
      world.fire(wakeUp);
      assert.equal(world.sockets.length, 2);
      assert.ok(!world.timers.includes(1000));
    });
  }

  test("a woken page asks its socket for a sign of life", () => {
    const { world, socket } = online();
    world.fire("online");
    assert.equal(socket.sent.at(-1).type, "heartbeat");
    world.pass(9999);
    assert.equal(world.sockets.length, 1);
    world.pass(1);
    assert.equal(world.sockets.length, 2);
  });

  test("a constructor that throws is a failed attempt", () => {
    const world = new World();
    world.forbidden = true;
    const { presence } = start({}, world);
    assert.equal(presence.state, "offline");
    assert.equal(world.timers.length, 1);
  });

  test("a handshake that is refused, over HTTP too, is one warning that names the settings, and an error event", async () => {
    const { world, heard, presence } = start();
    for (let i = 0; i < 9; i++) {
      if (world.socket.readyState === 0) world.socket.drop();
      await settle(); // in this world there is no fetch: a request fails
      world.pass(world.timers[0]);
    }
    assert.equal(presence.state, "offline");
    assert.equal(world.warnings.length, 1);
    for (const word of ["https://p.example", "url", "token", "PRESENCE_ALLOWED_ORIGINS"]) assert.ok(world.warnings[0].includes(word), word);
    assert.equal(heard.filter(([name, detail]) => name === "error" && detail.code === "refused").length, 1);
  });
});

describe("the page's own coming and going", () => {
  test("pagehide closes the socket, pageshow from the back/forward cache opens a new one", () => {
    const { world, socket, presence } = online();
    world.fire("pagehide");
    assert.equal(socket.closedWith, 1000);
    assert.equal(presence.state, "offline");
    assert.deepEqual(world.timers, []);
    world.show(false);
    assert.equal(world.sockets.length, 1);
    world.fire("pageshow", { persisted: true });
    assert.equal(world.sockets.length, 2);
  });

  test("the pageshow of an ordinary load opens nothing", () => {
    const { world } = start();
    world.fire("pageshow", { persisted: false });
    world.socket.welcome();
    world.fire("pageshow", { persisted: false });
    assert.equal(world.sockets.length, 1);
  });

  test("hiding and showing is told", () => {
    const { world, socket } = online();
    world.show(false);
    assert.deepEqual(socket.sent.at(-1), { type: "visible", visible: false });
    world.show(true);
    assert.deepEqual(socket.sent.slice(-2), [{ type: "visible", visible: true }, { type: "heartbeat", seq: 1, visible: true }]);
  });

  test("a visible page accepts an offer by itself", () => {
    const { socket, heard } = online();
    socket.say("interview", { state: "offered", message: "", offer_expires_in_s: 90 });
    assert.deepEqual(socket.types(), ["hello", "accept"]);
    assert.deepEqual(heard.at(-1)[1].state, "offered");
    socket.say("interview", { state: "granted", message: "", fence: 1 });
    socket.say("interview", { state: "offered", message: "" });
    assert.deepEqual(socket.types(), ["hello", "accept", "accept"]);
  });

  test("a hidden page leaves an offer alone until it is shown", () => {
    const { world, socket } = online();
    world.show(false);
    socket.say("interview", { state: "offered", message: "" });
    assert.deepEqual(socket.types(), ["hello", "visible"]);
    world.show(true);
    assert.deepEqual(socket.types().slice(2), ["visible", "accept", "heartbeat"]);
  });

  test("an offer that Redis may not let anybody accept for the moment is accepted with the next heartbeat", () => {
    const { world, socket } = online();
    for (let i = 0; i < 3; i++) socket.say("interview", { state: "offered", message: "" });
    assert.deepEqual(socket.types(), ["hello", "accept"]);
    world.pass(20_000);
    socket.say("ack", { seq: 1 });
    assert.deepEqual(socket.types(), ["hello", "accept", "heartbeat", "accept"]);
    socket.say("interview", { state: "granted", message: "", fence: 1 });
    world.pass(20_000);
    socket.say("ack", { seq: 2 });
    assert.deepEqual(socket.types().slice(4), ["heartbeat"]);
  });

  test("an offer that comes with the welcome is accepted, one that was missed is not", () => {
    const { world } = online();
    world.socket.drop();
    world.pass(1000);
    world.socket.welcome({ interview: { state: "offered", message: "" } });
    assert.deepEqual(world.socket.types(), ["hello", "accept"]);
    world.socket.say("interview", { state: "waiting", message: "", position: 1 });
    world.show(false);
    world.show(true);
    assert.deepEqual(world.socket.types(), ["hello", "accept", "visible", "visible", "heartbeat"]);
  });

  test("who asked to leave is not made to accept", () => {
    const { socket, presence } = online();
    presence.leave();
    socket.say("interview", { state: "offered", message: "" });
    assert.deepEqual(socket.types(), ["hello", "leave"]);
  });

  test("a page may close as soon as it hears that it is offline", () => {
    const { world, presence, socket } = online();
    presence.on("offline", presence.close);
    socket.drop();
    assert.deepEqual(world.timers, []);
    assert.equal(presence.state, "offline");
  });

  test("close is for good, but does not end the session", () => {
    const { world, presence, heard } = online();
    presence.close();
    world.fire("online");
    presence.enter();
    world.pass(60_000);
    assert.equal(world.sockets.length, 1);
    assert.equal(presence.state, "offline");
    assert.deepEqual(names(heard).slice(-1), ["offline"]);
  });
});

describe("close codes", () => {
  test("4409 ends: taken over by another tab", () => {
    const { presence, world, heard } = online();
    world.socket.drop(4409);
    assert.deepEqual(heard.at(-1), ["ended", { code: 4409, reason: "taken_over" }]);
    assert.equal(presence.state, "ended");
    world.fire("online");
    world.pass(60_000);
    assert.equal(world.sockets.length, 1);
    assert.deepEqual(world.warnings, []);
  });

  test("4410 ends for the reason that the server gave", () => {
    const { world, heard } = online();
    world.socket.drop(4410, "kicked");
    assert.deepEqual(heard.at(-1), ["ended", { code: 4410, reason: "kicked" }]);
  });

  test("4401 without getToken ends with one warning", () => {
    const { world, heard } = start();
    world.socket.accept();
    world.socket.drop(4401, "bad_token");
    assert.deepEqual(heard.at(-1), ["ended", { code: 4401, reason: "bad_token" }]);
    assert.equal(world.warnings.length, 1);
  });

  test("4401 asks getToken once, then goes on with the new token", async () => {
    const asked = [];
    const { world, presence } = start({ getToken: async () => (asked.push(1), token("s", 50)) });
    world.socket.accept();
    world.socket.drop(4401, "bad_token");
    await settle();
    assert.equal(world.socket.welcome().token, token("s", 50));
    assert.equal(presence.state, "online");
    assert.equal(asked.length, 1);
    world.socket.drop(4401, "bad_token"); // much later, so it asks again
    await settle();
    assert.equal(asked.length, 2);
  });

  test("a new token that is refused too ends it", async () => {
    const { world, heard } = start({ getToken: async () => "another" });
    world.socket.accept();
    world.socket.drop(4401, "bad_token");
    await settle();
    world.socket.accept();
    world.socket.drop(4401, "bad_token");
    assert.deepEqual(heard.at(-1), ["ended", { code: 4401, reason: "bad_token" }]);
  });

  test("getToken that fails is asked again after a while", async () => {
    let calls = 0;
    const getToken = async () => {
      if (++calls < 3) throw new Error("the app is away");
      return TOKEN;
    };
    const { world } = start({ token: undefined, getToken });
    for (let i = 0; i < 3; i++) {
      await settle();
      world.pass(9000);
    }
    await settle();
    assert.equal(calls, 3);
    assert.equal(world.socket.welcome().token, TOKEN);
  });
});

describe("requests", () => {
  test("one made while connecting is sent once online", () => {
    const { presence, socket } = start();
    presence.enter();
    socket.welcome();
    assert.deepEqual(socket.sent.slice(1), [{ type: "enter", takeover: false }]);
  });

  test("one that was not answered is repeated on the next connection, an answered one is not", () => {
    const { presence, world, socket } = online();
    presence.enter({ takeover: 1 });
    assert.deepEqual(socket.sent.at(-1), { type: "enter", takeover: true });
    socket.drop();
    world.pass(1000);
    world.socket.welcome();
    assert.deepEqual(world.socket.types(), ["hello", "enter"]);
    world.socket.say("interview", { state: "waiting", position: 1, message: "" });
    world.socket.drop();
    world.pass(5000);
    world.socket.welcome();
    assert.deepEqual(world.socket.types(), ["hello"]);
  });

  test("the last one made counts", () => {
    const { presence, socket } = start();
    presence.enter();
    presence.leave();
    socket.welcome({ interview: { state: "waiting", message: "" } });
    assert.deepEqual(socket.types(), ["hello", "leave"]);
  });

  test("complete is never overridden nor lost", () => {
    const { presence, world, socket } = online();
    presence.complete();
    presence.enter();
    assert.deepEqual(socket.types(), ["hello", "complete"]);
    socket.say("interview", { state: "granted", message: "" });
    socket.drop();
    world.pass(1000);
    world.socket.welcome();
    assert.deepEqual(world.socket.types(), ["hello", "complete"]);
  });

  test("complete that was done before the connection broke ends as completed", () => {
    const { presence, world, socket, heard } = online();
    presence.complete();
    socket.drop();
    world.pass(1000);
    world.socket.accept();
    world.socket.drop(4410, "completed");
    assert.deepEqual(heard.at(-1), ["ended", { code: 4410, reason: "completed" }]);
  });

  test("one that failed for the moment is repeated when the server says so", () => {
    const { presence, world, socket, heard } = online();
    presence.complete();
    socket.say("error", { code: "redis_away", message: "", retry_in_ms: 3000 });
    world.pass(2999);
    assert.deepEqual(socket.types(), ["hello", "complete"]);
    world.pass(1);
    assert.deepEqual(socket.types(), ["hello", "complete", "complete"]);
    assert.equal(heard.at(-1)[1].code, "redis_away");
  });

  test("the same request can be made again", () => {
    const { presence, socket } = online();
    presence.enter();
    socket.say("interview", { state: "granted", message: "" });
    presence.enter();
    assert.deepEqual(socket.types(), ["hello", "enter", "enter"]);
  });
});

describe("capacity", () => {
  test("is watched while somebody listens, on every connection", () => {
    const { presence, world, socket } = online();
    const seen = [];
    const stop = presence.on("capacity", ({ active }) => seen.push(active));
    socket.say("capacity", { active: 2 });
    socket.drop();
    world.pass(1000);
    world.socket.welcome({ capacity: { active: 3 } });
    stop();
    assert.deepEqual(socket.types(), ["hello", "watch"]);
    assert.deepEqual(world.socket.types(), ["hello", "watch", "unwatch"]);
    assert.deepEqual(seen, [2, 3]);
  });
});

describe("drain", () => {
  test("opens the new socket first and closes the old one after the welcome, without going offline", () => {
    const { world, socket, presence, heard } = online();
    socket.say("drain", { reconnect_in_ms: 300 });
    world.pass(299);
    assert.equal(world.sockets.length, 1);
    world.pass(1);
    assert.equal(world.sockets.length, 2);
    assert.equal(socket.closedWith, null);
    socket.say("interview", { state: "granted", message: "" });
    world.socket.welcome();
    assert.equal(socket.closedWith, 1000);
    socket.drop(1000);
    assert.equal(presence.state, "online");
    assert.deepEqual(names(heard), ["online", "interview", "interview", "interview"]);
    assert.equal(world.sockets.length, 2);
  });

  test("the old socket serves on when the new one fails", () => {
    const { world, socket, presence } = online();
    socket.say("drain", { reconnect_in_ms: 0 });
    world.pass(0);
    world.socket.drop();
    assert.equal(presence.state, "online");
    presence.setPage("next");
    assert.equal(socket.sent.at(-1).type, "page");
    world.pass(2000);
    assert.equal(world.sockets.length, 3);
    socket.drop(4000);
    world.socket.drop();
    assert.equal(presence.state, "offline");
  });
});

describe("storage", () => {
  test("the newest token outlives a reload, before the page has any", () => {
    const { world, socket } = online();
    socket.say("token", { token: token("s", 99, { fence: 7 }) });
    const { hello } = online({ token: undefined }, new World(world.stored));
    assert.equal(hello.token, token("s", 99, { fence: 7 }));
  });

  test("another session's token is not touched by it", () => {
    const { world } = online();
    assert.equal(online({ token: token("other", 1) }, new World(world.stored)).hello.token, token("other", 1));
  });

  test("another server's token is not sent", () => {
    const { world } = online();
    const { presence } = start({ url: "https://evil.example", token: undefined }, new World(world.stored));
    assert.equal(presence.state, "ended");
  });

  test("an ended session's token is forgotten", () => {
    const { world } = online();
    world.socket.drop(4410);
    assert.equal(start({ token: undefined }, new World(world.stored)).presence.state, "ended");
  });

  for (const rubbish of ["null", "{", "7", '{"token":7}']) {
    test(`what somebody else has put there does no harm: ${rubbish}`, () => {
      assert.equal(online({}, new World({ "presence:https://p.example": rubbish })).presence.state, "online");
    });
  }

  test("a page where storage is forbidden works all the same", () => {
    const world = new World();
    Object.defineProperty(world, "sessionStorage", { get: () => { throw new Error("SecurityError"); } });
    assert.equal(online({}, world).presence.state, "online");
  });
});

describe("resilience", () => {
  for (const options of [undefined, null, {}, { url: "::", token: "t" }, { url: "https://p.example" }]) {
    test(`bad options ${JSON.stringify(options)}: one warning, one error event, no exception`, async () => {
      const world = new World();
      const presence = connect(options, world);
      const heard = record(presence);
      presence.enter();
      presence.setPage("x");
      world.pass(0);
      assert.deepEqual(names(heard), ["error"]);
      assert.equal(heard[0][1].code, "bad_options");
      assert.equal(world.warnings.length, 1);
      assert.equal(presence.state, "ended");
    });
  }

  test("a listener that throws disturbs neither the others nor the page", () => {
    const { presence, world, socket } = start();
    const heard = [];
    presence.on("online", () => {
      throw new Error("mine");
    });
    presence.on("online", () => heard.push("other"));
    socket.welcome();
    assert.deepEqual(heard, ["other"]);
    assert.equal(world.errors[0].message, "mine");
    assert.equal(presence.state, "online");
  });

  test("a listener may stop listening while it is called", () => {
    const { presence, socket } = start();
    let calls = 0;
    const stop = presence.on("interview", () => (calls++, stop()));
    socket.welcome();
    socket.say("interview", NONE);
    assert.equal(calls, 1);
  });

  test("an event name that objects know is nothing special", () => {
    const { presence, socket } = online();
    socket.say("toString");
    socket.say("constructor");
    assert.equal(presence.state, "online");
  });

  test("an unknown message of a newer server is passed by", () => {
    const { socket, presence } = online();
    socket.say("confetti", { n: 1 });
    assert.equal(presence.state, "online");
  });
});
