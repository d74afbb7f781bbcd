/** The browser client of interview-presence. Import it from the presence server: `https://presence.example/client.js`. */

export interface Options {
  /** Where the presence server is, e.g. `https://presence.example`; the server this script came from, if not given. */
  url?: string;
  /** The session's token, from `POST /v1/sessions`. A newer one of the same session that this tab has kept is preferred. */
  token?: string;
  /** The page the participant is on, up to 200 characters. */
  page?: string;
  /** Asked for a new token when there is none, or when the server refused the one there was. */
  getToken?: () => Promise<string>;
  /** Only bring back the session that this tab has kept; where there is none, the state is `ended` without a word. */
  revive?: boolean;
}

/**
 * `connecting`: a connection is being made · `online`: the server sees this page · `fallback`: it does, over HTTP ·
 * `offline`: no connection; the next attempt is under way or timed · `ended`: over, nothing is attempted any more.
 */
export type State = "connecting" | "online" | "fallback" | "offline" | "ended";

/** Where this session stands towards the limit. `message` is a sentence for the participant, in their language. */
export interface Interview {
  state: "none" | "waiting" | "offered" | "granted" | "denied";
  message: string;
  /** Why a claim was denied, or why there is no permit any more. */
  reason?:
    | "at_capacity" | "line_full" | "closed" | "elsewhere" | "ended"
    | "expired" | "released" | "completed" | "kicked" | "max_length" | "taken_over";
  /** The number of the permit; it only rises. */
  fence?: number;
  /** Place in the whole line, from 1. */
  position?: number;
  waiting?: number;
  eta_s?: number;
  eta_max_s?: number;
  eta_reason?: string;
  offer_expires_in_s?: number;
  ends_in_s?: number;
}

/** How full the pool is. */
export interface Capacity {
  pool: string;
  mode: "open" | "paused" | "closed";
  limit: number;
  /** Permits held, without open offers. */
  active: number;
  available: number;
  offered: number;
  waiting: number;
  sessions_online: number;
  sessions_active: number;
  eta_s: number | null;
  eta_max_s: number | null;
  recovering: boolean;
  as_of: string;
}

/** What each event's listener is given. */
export interface Events {
  /** The standing: upon connecting, on every change, and as the answer to each request. */
  interview: Interview;
  online: undefined;
  /** WebSockets are blocked here: the server sees this page over HTTP, and what changes is heard with a delay. */
  fallback: undefined;
  offline: undefined;
  /** How full it is, at most twice a second; sent by the server only while somebody listens. */
  capacity: Capacity;
  /**
   * Over; nothing more is attempted. `reason`: `completed`, `kicked`, `abandoned`, `cleanup`, `bad_token`, ..., or
   * `taken_over`: the session goes on in another tab, and `resume()` continues it here. `code`: the close code.
   */
  ended: { reason: string; code: number };
  /** `code` is for programs (`redis_away`, `refused`, `bad_options`, ...), `message` for people. */
  error: { code: string; message: string; retry_in_ms?: number };
}

export interface Presence {
  readonly state: State;
  /** Listens; the returned function stops that. What a listener throws is written to the console and goes no further. */
  on<Name extends keyof Events>(name: Name, listener: (detail: Events[Name]) => void): () => void;
  setPage(page: string): void;
  /** Asks for a place, or joins the line. Like all requests it is kept until the server has answered; the last one counts. */
  enter(how?: { takeover?: boolean }): void;
  /** Takes the place that is offered. A visible page does so by itself, also when it becomes visible. */
  accept(): void;
  /** Gives the place back, or leaves the line. */
  leave(): void;
  /** The interview is finished: the session ends as completed. No later request overrides this one. */
  complete(): void;
  /** Disconnects. The session itself goes on. */
  close(): void;
  /** "Continue here", after `taken_over` or `close()`: connects again, and the tab that has the session now loses it. */
  resume(): void;
}

/** Connects this page, and keeps it connected. Never throws; what is wrong arrives as an `error` event. */
export function connect(options?: Options): Presence;

/** The presence that `<script type="module" src=".../client.js" data-token="..." data-page="...">` started. */
export const presence: Presence | undefined;
