// Keeps a page connected by a WebSocket that comes back. Described in client.d.ts.
import { closed, newest, owed, settled } from "./client/rules.js";

/** @type {import("./client/types.d.ts").Connect} */
export const connect = (options, world = globalThis) => {
  const { url = new URL(import.meta.url).origin, token: given, page, getToken } = options ?? {};
  const { setTimeout, clearTimeout, console, Date: { now }, Math: { random } } = world;
  const visible = () => world.document?.visibilityState !== "hidden";
  const tokenKey = "token:" + url;
  const tab = kept("tab") || random().toString(36).slice(2);
  const wanted = { page: clean(page), visible: visible(), watch: false, wish: null };
  const listeners = Object.create(null);
  const life = new AbortController();
  let token = newest(given, kept(tokenKey));
  let attempt = +kept("attempt") || 0;
  let failures = 0;
  let refusals = 0;
  let address, link, timer, renewed, warned, state, standing;

  function kept(key, value) {
    key = "presence:" + key;
    try {
      if (value == null) return world.sessionStorage.getItem(key);
      world.sessionStorage.setItem(key, value);
    } catch {} // forbidden here: nothing outlives a reload
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
    const message = `presence: ${code} (${url}): check url, token, PRESENCE_ALLOWED_ORIGINS`;
    if (!warned) console.warn(message);
    warned = true;
    emit("error", { code, message });
  }

  const send = (mine, message) => mine.socket.send(JSON.stringify(message));

  function sync() {
    wanted.watch = !!listeners.capacity?.size;
    if (!link?.up) return;
    for (const message of owed(wanted, link.told)) send(link, message);
    link.told = { ...wanted };
  }

  function repeat(mine) {
    if (mine.told) mine.told.wish = null;
    sync();
  }

  // 10 s in two steps, so that an answer that waited behind a blocked page is read first.
  function guard(mine) {
    mine.guard = setTimeout(() => (mine.guard = setTimeout(lost, 500, mine, 0)), 9500);
  }

  function relax(mine) {
    clearTimeout(mine.guard);
    mine.guard = 0;
  }

  function beat(mine) {
    clearTimeout(mine.beat);
    mine.beat = setTimeout(beat, mine.every, mine);
    if (mine.guard) return;
    guard(mine);
    send(mine, { type: "heartbeat", seq: ++mine.seq, visible: wanted.visible });
  }

  async function open() {
    /** @type {any} */
    const mine = (link = { old: link, seq: 0 });
    later();
    guard(mine);
    try {
      if (!token) {
        token = await getToken();
        renewed = true;
      }
      if (mine.lost) return;
      kept("tab", tab);
      kept("attempt", (attempt = Math.max(attempt + 1, now())));
      const hello = { type: "hello", token, tab, attempt };
      const socket = (mine.socket = new world.WebSocket(address, "presence.v1"));
      socket.onopen = () => {
        mine.told = { page: wanted.page, visible: wanted.visible };
        send(mine, { ...hello, ...mine.told });
      };
      socket.onmessage = ({ data }) => mine.lost || receive(mine, data);
      socket.onclose = ({ code, reason }) => lost(mine, code, reason);
    } catch {
      lost(mine, 1006);
    }
  }

  function receive(mine, data) {
    const { type, ...message } = JSON.parse(data);
    if (type === "welcome") {
      mine.up = now();
      mine.every = message.heartbeat_s * 1000;
      mine.beat = setTimeout(beat, mine.every, mine);
      relax(mine);
      shut(mine.old);
      mine.old = renewed = refusals = 0;
      kept(tokenKey, token);
      become("online");
      hear(message.interview);
      emit("capacity", message.capacity);
      sync();
    } else if (type === "ack") {
      if (message.seq === mine.seq) relax(mine);
    } else if (type === "token") {
      kept(tokenKey, (token = message.token));
    } else if (type === "drain") {
      later(message.reconnect_in_ms);
    } else {
      if (type === "interview") {
        if (wanted.wish && settled(wanted.wish, message)) wanted.wish = null;
        return hear(message);
      }
      if (type === "error") {
        mine.hint = message.retry_in_ms;
        if (mine.hint && wanted.wish) setTimeout(repeat, mine.hint, mine);
      }
      emit(type, message);
    }
  }

  function hear(interview) {
    standing = interview.state;
    emit("interview", interview);
    take();
  }

  // An offer is accepted for those who see it, and waits for those who don't.
  function take() {
    if (standing === "offered" && wanted.visible && !wanted.wish) ask("accept");
  }

  function later(ms) {
    clearTimeout(timer);
    if (ms >= 0) timer = setTimeout(open, ms);
  }

  function shut(mine) {
    if (!mine) return;
    mine.lost = true;
    clearTimeout(mine.beat);
    relax(mine);
    mine.socket?.close();
  }

  function lost(mine, code, text) {
    if (mine.lost) return;
    shut(mine);
    if (mine !== link) return;
    const { old, told, up, hint = 0 } = mine;
    link = old?.lost ? null : old;
    if (code === 4401 && getToken && !renewed) {
      token = null;
      return open();
    }
    const next = closed(code, { text, up: up ? now() - up : 0, failures, hint, random });
    if (next.reason) return end(code, next.reason);
    failures = next.failures;
    if (!told && ++refusals === 2) complain("refused");
    if (!link) become("offline");
    later(next.wait);
  }

  function end(code, reason) {
    rest();
    life.abort();
    kept(tokenKey, "");
    if (code !== 4409 && code !== 4410) complain(reason);
    become("ended", { code, reason });
  }

  function rest() {
    later();
    shut(link?.old);
    shut(link);
    link = null;
  }

  function onPage(event) {
    const { type, persisted } = event;
    if (type === "pagehide") {
      // The back/forward cache would keep the socket open for minutes.
      rest();
      return become("offline");
    }
    wanted.visible = visible();
    sync();
    take();
    if (type === "pageshow" ? !persisted : type !== "online" && !wanted.visible) return;
    if (link?.up) beat(link);
    else if (!link) open();
  }

  function ask(type, more) {
    if (wanted.wish?.type !== "complete") wanted.wish = { type, ...more };
    sync();
  }

  try {
    state = "connecting";
    address = new URL(url).href.replace(/^http/, "ws").replace(/\/?(\/ws)?$/, "/ws");
    if (!token && !getToken) throw 0;
    for (const name of ["online", "pagehide", "pageshow", "visibilitychange"]) {
      world.addEventListener(name, onPage, { signal: life.signal });
    }
    open();
  } catch {
    state = "ended";
    Promise.resolve("bad_options").then(complain);
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
    enter: (how) => ask("enter", { takeover: !!how?.takeover }),
    accept: () => ask("accept"),
    leave: () => ask("leave"),
    complete: () => ask("complete"),
    close() {
      rest();
      life.abort();
      become("offline");
    },
  };
};

// What the server takes: no control characters, and no half of a pair that the cut may leave; it would end the session.
const clean = (page) => (page == null ? undefined : String(page).slice(0, 200).replace(/[\x00-\x1f\x7f\ud800-\udfff]/gu, " "));

const scripts = globalThis.document?.querySelectorAll("script") ?? [];
const mine = [...scripts].find(({ src, dataset }) => src === import.meta.url && "token" in dataset);
export const presence = mine && connect(mine.dataset);
