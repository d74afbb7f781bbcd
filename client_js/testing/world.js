// A browser's surroundings in the hand of a test: sockets, timers, storage, page events. A real server is in tests/e2e.
export class FakeSocket {
  readyState = 0;
  sent = [];
  closedWith = null;
  constructor(world, url, protocol) {
    Object.assign(this, { world, url, protocol });
    world.sockets.push(this);
    if (world.forbidden) throw new Error("SecurityError");
  }
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  close(code = 1000) {
    this.closedWith ??= code;
    this.readyState = 3;
  }
  // What the server does:
  accept() {
    this.readyState = 1;
    this.onopen();
    return this.sent.at(-1);
  }
  say(type, fields = {}) {
    this.onmessage({ data: JSON.stringify({ type, ...fields }) });
  }
  welcome(fields = {}) {
    const hello = this.accept();
    this.say("welcome", { session_id: "s", connection_id: "c", resumed: false, heartbeat_s: 20, interview: NONE, capacity: {}, ...fields });
    return hello;
  }
  drop(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose({ code, reason });
  }
  types() {
    return this.sent.map(({ type }) => type);
  }
}

export const NONE = { state: "none", message: "" };

/** Time stands still until `pass` moves it; `random` is what Math.random answers. */
export class World extends EventTarget {
  sockets = [];
  warnings = [];
  errors = [];
  clock = 1_000_000;
  chance = 0.5;
  forbidden = false;
  #timers = new Map();
  #next = 1;
  navigator = {};
  document = { visibilityState: "visible" };
  console = { warn: (text) => this.warnings.push(text), error: (error) => this.errors.push(error) };
  Date = { now: () => this.clock };
  Math = { random: () => this.chance };

  constructor(stored = {}) {
    super();
    const world = this;
    this.stored = this.sessionStorage = stored;
    this.WebSocket = function (url, protocol) {
      return new FakeSocket(world, url, protocol);
    };
    this.addEventListener = this.addEventListener.bind(this);
    this.removeEventListener = this.removeEventListener.bind(this);
  }
  setTimeout = (run, ms = 0, ...args) => {
    this.#timers.set(this.#next, { at: this.clock + ms, run: () => run(...args) });
    return this.#next++;
  };
  clearTimeout = (id) => this.#timers.delete(id);
  get timers() {
    return [...this.#timers.values()].map(({ at }) => at - this.clock).sort((a, b) => a - b);
  }
  pass(ms) {
    const until = this.clock + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= until).sort(([a, x], [b, y]) => x.at - y.at || a - b)[0];
      if (!due) break;
      const [id, { at, run }] = due;
      this.#timers.delete(id);
      this.clock = at;
      run();
    }
    this.clock = until;
  }
  /** From now on requests reach a server: `answer({ method, path, body, token })` gives `[status, body]`. */
  serve(answer) {
    this.requests = [];
    this.beacons = [];
    this.workers = [];
    const world = this;
    this.fetch = async (url, { method, body, headers }) => {
      const request = { method, path: url.replace("https://p.example/v1", ""), body: body && JSON.parse(body), token: headers.Authorization };
      world.requests.push(request);
      const [status, answered] = await answer(request);
      return { status, ok: status < 300, json: async () => structuredClone(answered) };
    };
    this.navigator.sendBeacon = (url, body) => this.beacons.push([url, JSON.parse(body)]);
    this.Worker = function (url) {
      if (world.workersForbidden) throw new Error("SecurityError");
      world.workers.push(Object.assign(this, { url, terminate: () => (this.terminated = true) }));
    };
  }
  fire(type, fields = {}) {
    this.dispatchEvent(Object.assign(new Event(type), fields));
  }
  show(visible) {
    this.document.visibilityState = visible ? "visible" : "hidden";
    this.fire("visibilitychange");
  }
  get socket() {
    return this.sockets.at(-1);
  }
}

/** An unsigned token, as far as a browser can tell one. */
export function token(sub, iat, extra = {}) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "HS256" })}.${part({ sub, iat, ...extra })}.c2ln`;
}

/** Everything that a presence tells its page, in order. */
export function record(presence) {
  const heard = [];
  for (const name of ["interview", "online", "fallback", "offline", "ended", "error"]) presence.on(name, (detail) => heard.push([name, detail]));
  return heard;
}

export const settle = () => new Promise((resolve) => setImmediate(resolve));

/** The Web Locks of one browser: shared by the tabs that are given it. A request that is aborted fails. */
export class Locks {
  held = new Map();
  request = async (name, { signal }, whileHeld) => {
    while (this.held.has(name)) await Promise.race([this.held.get(name), aborted(signal)]);
    const held = Promise.resolve(whileHeld());
    this.held.set(name, held);
    await held;
    this.held.delete(name);
  };
}

const aborted = (signal) => new Promise((_, fail) => signal.addEventListener("abort", () => fail(signal.reason)));
