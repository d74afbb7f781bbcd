// Keeps a page connected: see client.d.ts and docs/client.md.

/** @type {import("./client/types.d.ts").Connect} */
export const connect = (options, world = globalThis) => {
  const { url = new URL(import.meta.url).origin, token: given, page, getToken, revive } = options ?? {};
  const { setTimeout, clearTimeout, console, navigator, Date: { now }, Math: { random } } = world;
  const visible = () => world.document?.visibilityState !== "hidden";
  const mint = () => random().toString(36).slice(2);
  const wanted = { page: clean(page), visible: visible() };
  const listeners = Object.create(null);
  let past = {};
  let failures = 0;
  let unopened = 0;
  let state, base, link, timer, unlock, renewed, warned, standing;

  try {
    base = new URL(url).href.replace(/^ws/, "http").replace(/\/?(\/ws)?$/, "");
    past = JSON.parse(world.sessionStorage["presence:" + base]) ?? past;
  } catch {}
  let { tab = mint(), attempt = 0 } = past;
  let token = newest(given, past.token);

  function keep() {
    try {
      world.sessionStorage["presence:" + base] = JSON.stringify({ tab, attempt, token: state !== "ended" && token });
    } catch {}
  }

  function emit(name, detail) {
    for (const listener of listeners[name] ?? []) {
      try {
        listener(detail);
      } catch (error) {
        console.error(error);
      }
    }
  }

  function become(next, detail) {
    if (state !== next) emit((state = next), detail);
  }

  function complain(code) {
    if (warned === code) return;
    const message = `presence: ${(warned = code)} (${url}): check url, token, PRESENCE_ALLOWED_ORIGINS`;
    console.warn(message);
    emit("error", { code, message });
  }

  function sync() {
    const mine = link?.up ? link : link?.old;
    if (standing === "offered" && wanted.visible) wanted.wish ??= { type: "accept" };
    wanted.watch = !!listeners.capacity?.size;
    if (!mine?.up) return;
    for (const message of owed(wanted, mine.told)) mine.send(message);
    mine.told = { ...wanted };
  }

  // In two steps: a busy page reads first.
  function guard(mine, ms) {
    clearTimeout(mine.guard);
    mine.guard = ms && setTimeout(() => (mine.guard = setTimeout(lost, 500, mine, 0)), ms);
  }

  function beat(mine) {
    clearTimeout(mine.beat);
    mine.beat = setTimeout(beat, mine.every, mine);
    if (mine.guard) return;
    guard(mine, 9500);
    mine.send({ type: "heartbeat", seq: ++mine.seq, visible: wanted.visible });
  }

  // A duplicated tab finds its id locked.
  const identify = (mine) =>
    new Promise((done) => {
      const hold = () => {
        done();
        return mine.lost || new Promise((release) => (unlock = release));
      };
      navigator.locks.request("presence:" + tab, { signal: AbortSignal.timeout?.(1000) }, hold).catch(({ name }) => {
        if (name !== "TimeoutError") return done();
        tab = mint();
        done(identify(mine));
      });
    });

  async function open() {
    const old = link;
    if (old?.http) {
      beat(old); // nobody is taken back from another tab
      await old.turn;
      if (old !== link) return;
    }
    link = { old, seq: 0, http: !old && unopened > 1 };
    /** @type {any} */
    const mine = link;
    later();
    guard(mine, 9500);
    try {
      if (!unlock && navigator?.locks) await identify(mine);
      if (!token) renewed = token = await getToken();
      if (mine.lost) return;
      attempt = Math.max(attempt + 1, now());
      keep();
      if (mine.http) return overHttp(mine);
      guard(mine, 3500);
      const socket = new world.WebSocket(base.replace("http", "ws") + "/ws", "presence.v1");
      mine.close = () => socket.close();
      mine.send = (message) => socket.send(JSON.stringify(message));
      socket.onopen = () => greet(mine);
      socket.onmessage = ({ data }) => receive(mine, JSON.parse(data));
      socket.onclose = ({ code, reason }) => lost(mine, code, reason);
    } catch {
      lost(mine, 0);
    }
  }

  function overHttp(mine) {
    const session = base + "/v1/sessions/" + claims(token).sub;
    let connection_id;
    mine.turn = Promise.resolve();
    unopened = 0;

    async function request(method, address, body) {
      const headers = { Authorization: "Bearer " + token };
      const response = await world.fetch(address, { method, headers, body: JSON.stringify(body), keepalive: true });
      const answer = await response.json();
      if (response.ok || answer.state) return answer;
      if (answer.code === "stale_connection" && (await request("GET", session)).connection) throw { code: 4409 };
      const { status, code, detail } = answer;
      if (status > 428) emit("error", { code, message: detail });
      throw refused(answer);
    }

    async function act({ type, takeover, page }, isWish) {
      const path = type === "complete" ? "/complete" : isWish ? "/interview" : "/heartbeat";
      const body = isWish ? { takeover } : { tab, attempt, connection_id, visible: wanted.visible, page };
      const answer = await request(type === "leave" ? "DELETE" : "POST", session + path, body);
      if (type === "complete") throw { code: 4410, reason: "completed" };
      if (isWish) return receive(mine, { type: "interview", ...answer });
      ({ connection_id, token = token } = answer);
      keep();
      if (mine.lost) return mine.close();
      if (type === "heartbeat") repeat(mine);
      receive(mine, mine.up ? { type: "interview", ...answer.interview } : { type: "welcome", ...answer });
      guard(mine);
      if (wanted.watch) emit("capacity", await request("GET", base + "/v1/capacity"));
    }

    mine.send = (message) => {
      const isWish = message === wanted.wish;
      mine.turn = mine.turn.then(() => act(message, isWish)).catch(({ code = 1006, reason }) => lost(mine, code, reason));
    };
    mine.close = () => {
      mine.worker?.terminate();
      if (connection_id) navigator.sendBeacon(session + "/bye", JSON.stringify({ token, connection_id }));
    };
    greet(mine);
  }

  function greet(mine) {
    guard(mine, 9500);
    mine.told = { page: wanted.page, visible: wanted.visible };
    mine.send({ type: "hello", token, tab, attempt, ...mine.told });
  }

  // A hidden page's own timers are late.
  function tick(mine) {
    later(0);
    try {
      const code = new Blob([`setInterval(postMessage,${mine.every},0)`]);
      mine.worker = new world.Worker(URL.createObjectURL(code));
      mine.worker.onmessage = () => beat(mine);
    } catch {}
  }

  function receive(mine, { type, ...message }) {
    if (mine.lost) return;
    if (type === "welcome") {
      mine.up = now();
      mine.every = (message.heartbeat_s ?? message.next_s) * 1000;
      beat(mine);
      guard(mine);
      shut(mine.old);
      mine.old = renewed = 0;
      unopened = mine.http ? 2 : -4;
      if (mine.http) tick(mine);
      become(mine.http ? "fallback" : "online");
      receive(mine, { type: "interview", ...message.interview });
      if (message.capacity) emit("capacity", message.capacity);
    } else if (type === "interview") {
      if (wanted.wish && settled(wanted.wish, message)) wanted.wish = null;
      standing = message.state;
      emit(type, message);
      sync();
    } else if (type === "ack") {
      guard(mine);
      repeat(mine);
    } else if (type === "token") {
      token = message.token;
      keep();
    } else if (type === "drain") {
      later(message.reconnect_in_ms);
    } else {
      if (message.retry_in_ms) setTimeout(repeat, (mine.hint = message.retry_in_ms), mine);
      emit(type, message);
    }
  }

  function repeat(mine) {
    mine.told.wish = null;
    sync();
  }

  function later(ms) {
    clearTimeout(timer);
    timer = ms >= 0 && setTimeout(open, link?.http ? 60_000 : ms);
  }

  function shut(mine) {
    if (!mine) return;
    mine.lost = true;
    clearTimeout(mine.beat);
    guard(mine);
    mine.close?.();
  }

  function lost(mine, code, text) {
    if (mine.lost) return;
    shut(mine);
    if (mine !== link) return;
    const { old, told, up, http, hint = 0 } = mine;
    if (told) shut(old); // its hello replaces it
    link = old?.lost ? null : old;
    if (code === 4401 && getToken && !renewed) {
      token = null;
      return open();
    }
    const next = closed(code, { text, up: up && now() - up, failures, hint, random });
    if (next.reason) return end(code, next.reason);
    failures = next.failures;
    if (!told) unopened += code ? 1 : 2;
    later(next.wait);
    if (http && !up && code === 1006) complain("refused");
    if (!link) become("offline");
  }

  function end(code, reason) {
    rest();
    listen("remove");
    if (code !== 4409 && code !== 4410) complain(reason);
    become("ended", { code, reason });
    keep();
  }

  function rest() {
    later();
    shut(link?.old);
    shut(link);
    link = null;
    unlock = unlock?.();
  }

  function onPage({ type }) {
    if (type === "pagehide") {
      rest();
      return become("offline");
    }
    wanted.visible = visible();
    sync();
    if (type === "visibilitychange" && !wanted.visible) return;
    if (link?.up && !link.http) beat(link);
    else if (!link || link.up) open();
  }

  function listen(how) {
    for (const name of ["online", "pagehide", "pageshow", "visibilitychange"]) world[how + "EventListener"](name, onPage);
  }

  function ask(type, takeover) {
    if (wanted.wish?.type !== "complete") wanted.wish = { type, takeover };
    sync();
  }

  function resume() {
    if (link || !base || !(token || getToken)) return;
    state = "connecting";
    listen("add");
    open();
  }

  resume();
  if (!state) {
    state = "ended";
    if (!base || !revive) setTimeout(complain, 0, "bad_options");
  }

  return {
    get state() {
      return state;
    },
    on(name, listener) {
      (listeners[name] ??= new Set()).add(listener);
      sync();
      return () => {
        listeners[name].delete(listener);
        sync();
      };
    },
    setPage(name) {
      wanted.page = clean(name) ?? wanted.page;
      sync();
    },
    enter: (how) => ask("enter", !!how?.takeover),
    accept: () => ask("accept"),
    leave: () => ask("leave"),
    complete: () => ask("complete"),
    close() {
      rest();
      listen("remove");
      become("offline");
    },
    resume,
  };
};

export const backoff = (failures, random) => random() * Math.min(30_000, 1000 * 2 ** failures);

/** @type {import("./client/types.d.ts").Closed} */
export function closed(code, { text, up, failures, hint, random }) {
  if (code > 4399 || code === 1003 || code === 1009) return { reason: code === 4409 ? "taken_over" : text || "ended" };
  failures = up > 4999 ? 0 : failures + 1;
  return { failures, wait: code || failures ? hint + backoff(failures, random) : 0 };
}

/** @type {import("./client/types.d.ts").Owed} */
export function owed({ page, visible, watch, wish }, told) {
  const messages = [];
  if (page !== told.page) messages.push({ type: "page", page });
  if (visible !== told.visible) messages.push({ type: "visible", visible });
  if (watch !== !!told.watch) messages.push({ type: watch ? "watch" : "unwatch" });
  if (wish && wish !== told.wish) messages.push(wish);
  return messages;
}

/** @type {import("./client/types.d.ts").Settled} */
export function settled({ type }, { state, reason }) {
  if (type === "complete") return reason === "completed";
  return type === "accept" ? state !== "offered" : (type === "leave") === (state === "none");
}

export const claims = (token) => JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));

export function newest(given, kept) {
  try {
    const [mine, old] = [given, kept].map(claims);
    return mine.sub === old.sub && old.iat >= mine.iat ? kept : given;
  } catch {
    return given || kept;
  }
}

export const refused = ({ status, code, detail }) => ({
  code: status === 410 ? 4410 : status < 405 ? 4401 : 4000,
  reason: /\((\w+)\)/.exec(detail)?.[1] ?? code,
});

export const clean = (page) => page?.toString().slice(0, 200).replace(/[\p{Cc}\p{Cs}]/gu, " ");

const scripts = globalThis.document?.scripts ?? [];
const mine = [...scripts].find(({ src, dataset }) => src === import.meta.url && "token" in dataset);
export const presence = mine && connect(mine.dataset);
