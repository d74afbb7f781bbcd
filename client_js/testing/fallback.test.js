import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { connect } from "../client.js";
import { NONE, World, record, settle, token } from "./world.js";

const TOKEN = token("s", 10);
const WAITING = { state: "waiting", message: "", position: 1 };

/** A server that answers each heartbeat, and whose other answers a test sets by "METHOD path". */
class Server {
  interview = NONE;
  answers = {};
  connection = 0;
  answer = async ({ method, path, body }) => {
    const set = this.answers[`${method} ${path.replace("/sessions/s", "")}`];
    if (set) return set;
    if (path.endsWith("/heartbeat")) {
      const connection_id = body.connection_id ?? String(++this.connection);
      return [200, { connection_id, interview: this.interview, next_s: 20, token: this.token }];
    }
    return [200, this.interview];
  };
}

function start(options = {}, world = new World(), server = new Server()) {
  world.serve(server.answer);
  const presence = connect({ url: "https://p.example", token: TOKEN, page: "home", ...options }, world);
  return { presence, world, server, heard: record(presence) };
}

/** A page whose WebSockets are refused twice. */
async function fallenBack(options, world, server) {
  const all = start(options, world, server);
  for (let i = 0; i < 2; i++) {
    all.world.socket.drop();
    all.world.pass(all.world.timers[0]);
  }
  await settle();
  return all;
}

const names = (heard) => heard.map(([name]) => name);
const paths = (world) => world.requests.map(({ method, path }) => `${method} ${path.replace("/sessions/s", "")}`);

describe("falling back", () => {
  test("two sockets that never opened: heartbeats over HTTP, with the token in a header", async () => {
    const { world, presence, heard } = await fallenBack();
    assert.equal(presence.state, "fallback");
    assert.deepEqual(names(heard), ["offline", "fallback", "interview"]);
    const [{ body, token, ...request }] = world.requests;
    assert.deepEqual(request, { method: "POST", path: "/sessions/s/heartbeat" });
    assert.equal(token, `Bearer ${TOKEN}`);
    const { tab, attempt, ...rest } = body;
    assert.deepEqual(rest, { visible: true, page: "home" });
    assert.match(tab, /^[a-z0-9]{1,64}$/);
    assert.ok(attempt > 0);
    assert.deepEqual(world.warnings, []);
  });

  test("a constructor that throws falls back after one try", async () => {
    const world = new World();
    world.forbidden = true;
    const { presence } = start({}, world);
    world.pass(world.timers[0]);
    await settle();
    assert.equal(presence.state, "fallback");
    assert.equal(world.sockets.length, 1);
  });

  for (const [what, readyState] of [["is closed without a word (CSP)", 3], ["is swallowed", 0]]) {
    test(`a socket that ${what} falls back within 10 s`, async () => {
      const { presence, world } = start();
      world.socket.readyState = readyState;
      world.chance = 1; // the longest back-off
      for (let second = 0; second < 10 && presence.state !== "fallback"; second++) {
        world.pass(1000);
        await settle();
      }
      assert.equal(presence.state, "fallback");
    });
  }

  test("a socket that opened once does not count as blocked for a few failures", async () => {
    const { world, presence } = start();
    world.socket.welcome();
    for (let i = 0; i < 5; i++) {
      world.socket.drop();
      world.pass(world.timers[0]);
    }
    assert.equal(world.socket.readyState, 0);
    assert.equal(presence.state, "offline");
    assert.deepEqual(world.requests, []);
  });

  test("where HTTP fails as well, both are tried in turn until one succeeds", async () => {
    const server = new Server();
    server.answers["POST /heartbeat"] = [503, { status: 503, code: "redis_away", detail: "Redis is away." }];
    const { world, presence, heard } = await fallenBack({}, new World(), server);
    assert.equal(presence.state, "offline");
    assert.deepEqual(heard.at(-1), ["error", { code: "redis_away", message: "Redis is away." }]);
    world.pass(world.timers[0]);
    assert.equal(world.sockets.length, 3);
    world.socket.welcome();
    assert.equal(presence.state, "online");
  });
});

describe("over HTTP", () => {
  test("heartbeats carry the connection, come when the server wants them, and bring news", async () => {
    const { world, server, heard } = await fallenBack();
    server.interview = WAITING;
    world.pass(20_000);
    await settle();
    const { connection_id, visible, page } = world.requests.at(-1).body;
    assert.deepEqual({ connection_id, visible, page }, { connection_id: "1", visible: true, page: undefined });
    assert.deepEqual(heard.at(-1), ["interview", WAITING]);
  });

  test("page and visibility are told at once", async () => {
    const { world, presence } = await fallenBack();
    presence.setPage("learning");
    world.show(false);
    await settle();
    const [page, hidden] = world.requests.slice(1).map(({ body }) => body);
    assert.equal(page.page, "learning");
    assert.equal(hidden.visible, false);
  });

  test("each request is one of the server's, one after the other, and its answer is heard", async () => {
    const { world, presence, server, heard } = await fallenBack();
    server.answers["POST /interview"] = [409, { state: "denied", reason: "elsewhere", message: "" }];
    presence.enter();
    await settle();
    assert.deepEqual(heard.at(-1), ["interview", { state: "denied", reason: "elsewhere", message: "" }]);
    server.answers["POST /interview"] = [200, { state: "granted", fence: 1, message: "" }];
    presence.enter({ takeover: true });
    await settle();
    assert.deepEqual(heard.at(-1)[1].state, "granted");
    presence.leave();
    await settle();
    assert.deepEqual(world.requests.slice(1).map(({ method, path, body }) => [method, path, body]), [
      ["POST", "/sessions/s/interview", { takeover: false }],
      ["POST", "/sessions/s/interview", { takeover: true }],
      ["DELETE", "/sessions/s/interview", {}],
    ]);
  });

  test("an offer is accepted by a visible page only", async () => {
    const { world, server } = await fallenBack();
    world.show(false);
    server.interview = { state: "offered", message: "" };
    world.pass(20_000);
    await settle();
    assert.ok(!paths(world).includes("POST /interview"));
    server.answers["POST /interview"] = [200, { state: "granted", fence: 1, message: "" }];
    world.show(true);
    await settle();
    assert.ok(paths(world).includes("POST /interview"));
  });

  test("an offer that nobody may accept for the moment is tried again with the next heartbeat, not at once", async () => {
    const { world, server } = await fallenBack();
    server.interview = { state: "offered", message: "" };
    server.answers["POST /interview"] = [202, { state: "offered", message: "" }];
    const accepted = () => paths(world).filter((path) => path === "POST /interview").length;
    world.pass(20_000);
    await settle();
    assert.equal(accepted(), 1);
    world.pass(20_000);
    await settle();
    assert.equal(accepted(), 2);
  });

  test("complete ends the session", async () => {
    const { presence, heard, world } = await fallenBack();
    presence.complete();
    await settle();
    assert.equal(paths(world).at(-1), "POST /complete");
    assert.deepEqual(heard.at(-1), ["ended", { code: 4410, reason: "completed" }]);
  });

  test("how full it is comes with each heartbeat while somebody listens", async () => {
    const { presence, server, world } = await fallenBack();
    server.answers["GET /capacity"] = [200, { active: 2 }];
    const seen = [];
    presence.on("capacity", ({ active }) => seen.push(active));
    await settle();
    world.pass(20_000);
    await settle();
    assert.deepEqual(seen, [2, 2]);
  });

  test("a newer token is used and kept", async () => {
    const { server, world } = await fallenBack();
    server.token = token("s", 99, { fence: 3 });
    world.pass(20_000);
    await settle();
    server.token = undefined;
    world.pass(20_000);
    await settle();
    assert.equal(world.requests.at(-1).token, `Bearer ${token("s", 99, { fence: 3 })}`);
    assert.ok(JSON.stringify(world.stored).includes(token("s", 99, { fence: 3 })));
  });

  test("a server that is silent for 10 s is left, and asked anew", async () => {
    const { world, presence, server } = await fallenBack();
    const { answer } = server;
    world.serve(() => new Promise(() => {}));
    world.pass(30_000);
    assert.equal(presence.state, "offline");
    world.serve(answer);
    world.pass(world.timers[0]);
    await settle();
    assert.equal(presence.state, "fallback");
    assert.equal(world.requests.at(-1).body.connection_id, undefined);
  });

  test("a session that was ended elsewhere ends here for that reason", async () => {
    const { world, server, heard } = await fallenBack();
    server.answers["POST /heartbeat"] = [410, { status: 410, code: "session_ended", detail: "The session has ended (kicked)." }];
    world.pass(20_000);
    await settle();
    assert.deepEqual(heard.at(-1), ["ended", { code: 4410, reason: "kicked" }]);
  });

  test("a session that another tab has is left to it", async () => {
    const { world, server, heard } = await fallenBack();
    server.answers["POST /heartbeat"] = [409, { status: 409, code: "stale_connection", detail: "" }];
    server.answers["GET "] = [200, { connection: "http" }];
    world.pass(20_000);
    await settle();
    assert.deepEqual(heard.at(-1), ["ended", { code: 4409, reason: "taken_over" }]);
  });

  test("one that was silent for too long, as a laptop asleep, connects anew", async () => {
    const { world, server, presence, heard } = await fallenBack();
    server.answers["POST /heartbeat"] = [409, { status: 409, code: "stale_connection", detail: "" }];
    server.answers["GET "] = [200, { connection: null }];
    world.pass(20_000);
    await settle();
    assert.equal(presence.state, "offline");
    server.answers = {};
    world.pass(world.timers[0]);
    await settle();
    assert.equal(presence.state, "fallback");
    assert.ok(!names(heard).includes("error"));
  });

  test("401 asks getToken, and goes on with its answer", async () => {
    const fresh = token("s", 50);
    const server = new Server();
    const getToken = async () => ((server.answers = {}), fresh);
    const { world, presence } = await fallenBack({ getToken }, new World(), server);
    server.answers["POST /heartbeat"] = [401, { status: 401, code: "token_expired", detail: "" }];
    world.pass(20_000);
    await settle();
    assert.equal(presence.state, "fallback");
    assert.equal(world.requests.at(-1).token, `Bearer ${fresh}`);
  });
});

describe("leaving", () => {
  test("pagehide says bye by a beacon, pageshow comes back over HTTP", async () => {
    const { world, presence } = await fallenBack();
    world.fire("pagehide");
    assert.deepEqual(world.beacons, [["https://p.example/v1/sessions/s/bye", { token: TOKEN, connection_id: "1" }]]);
    assert.equal(presence.state, "offline");
    world.fire("pageshow", { persisted: true });
    await settle();
    assert.equal(presence.state, "fallback");
    assert.equal(world.requests.at(-1).body.connection_id, undefined);
  });

  test("a connection whose answer comes after close() is said bye to as well", async () => {
    const { world, presence } = start();
    world.socket.drop();
    world.pass(1000);
    world.socket.drop();
    world.pass(world.timers[0]);
    presence.close();
    await settle();
    assert.deepEqual(world.beacons.map(([, { connection_id }]) => connection_id), ["1"]);
    assert.equal(presence.state, "offline");
  });
});

describe("timing by a worker", () => {
  test("its ticks make the heartbeats when the page's timers are late", async () => {
    const { world } = await fallenBack();
    const [worker] = world.workers;
    assert.match(worker.url, /^blob:/);
    worker.onmessage();
    await settle();
    assert.equal(world.requests.length, 2);
  });

  test("it counts with the page's timer as one", async () => {
    const { world } = await fallenBack();
    world.pass(20_000);
    world.workers[0].onmessage();
    await settle();
    assert.equal(world.requests.length, 2);
    world.pass(19_999);
    assert.equal(world.requests.length, 2);
  });

  test("its code posts a message every so many ms", async () => {
    const { world } = await fallenBack();
    const { resolveObjectURL } = await import("node:buffer");
    assert.equal(await resolveObjectURL(world.workers[0].url).text(), "setInterval(postMessage,20000,0)");
  });

  test("it ends with the connection", async () => {
    const { world, presence } = await fallenBack();
    presence.close();
    assert.equal(world.workers[0].terminated, true);
  });

  test("where workers are forbidden the page's timers do", async () => {
    const world = new World();
    world.workersForbidden = true;
    const { presence } = await fallenBack({}, world);
    world.pass(20_000);
    await settle();
    assert.equal(presence.state, "fallback");
    assert.equal(world.requests.length, 2);
  });
});

describe("the way back", () => {
  test("a WebSocket is tried after a minute, and replaces HTTP without a gap", async () => {
    const { world, presence, heard } = await fallenBack();
    await back(world, 60_000);
    assert.equal(world.sockets.length, 3);
    assert.equal(presence.state, "fallback");
    world.socket.welcome();
    assert.equal(presence.state, "online");
    assert.ok(!names(heard).slice(1).includes("offline"));
    assert.equal(world.workers[0].terminated, true);
    const before = world.requests.length;
    world.pass(19_000);
    await settle();
    assert.equal(world.requests.length, before);
  });

  test("one that fails leaves HTTP as it is, until the next minute", async () => {
    const { world, presence, heard } = await fallenBack();
    await back(world, 60_000);
    world.socket.drop();
    presence.setPage("next");
    await settle();
    assert.equal(presence.state, "fallback");
    assert.equal(world.requests.at(-1).body.page, "next");
    await back(world, 59_000);
    assert.equal(world.sockets.length, 3);
    await back(world, 1000);
    assert.equal(world.sockets.length, 4);
    assert.deepEqual(names(heard).filter((name) => name !== "interview"), ["offline", "fallback"]);
  });

  test("what is asked for while one is tried goes over HTTP", async () => {
    const { world, presence } = await fallenBack();
    await back(world, 60_000);
    presence.enter();
    await settle();
    assert.equal(paths(world).at(-1), "POST /interview");
  });

  test("a new network, or a page that is shown, tries at once", async () => {
    const { world } = await fallenBack();
    world.fire("online");
    await settle();
    assert.equal(world.sockets.length, 3);
  });

  test("nothing is taken back from another tab on the way", async () => {
    const { world, server, presence } = await fallenBack();
    server.answers["POST /heartbeat"] = [409, { status: 409, code: "stale_connection", detail: "" }];
    server.answers["GET "] = [200, { connection: "ws" }];
    world.fire("online");
    await settle();
    assert.equal(world.sockets.length, 2);
    assert.equal(presence.state, "ended");
  });

  test("one whose hello was sent may have replaced HTTP: it connects anew", async () => {
    const { world, presence } = await fallenBack();
    await back(world, 60_000);
    world.socket.accept();
    world.socket.drop();
    assert.equal(presence.state, "offline");
    world.pass(world.timers[0]);
    await settle();
    assert.equal(presence.state, "fallback");
    assert.equal(world.requests.at(-1).body.connection_id, undefined);
  });
});

/** Time passes, heartbeat by heartbeat. */
async function back(world, ms) {
  for (let passed = 0; passed < ms; passed += 1000) {
    world.pass(1000);
    await settle();
  }
}
