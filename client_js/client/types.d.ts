// What lies between the parts of the client; for the type checker only.
import type { Interview, Options, Presence } from "../client.d.ts";

/** How many ms to wait after so many `failures` in a row: full jitter, at most 30 s. */
export type Backoff = (failures: number, random: () => number) => number;

/** A connection that was lost, `up` ms after its welcome (0: it had none); the server's `text`, and its `hint` in ms. */
export interface Loss {
  text?: string;
  up: number;
  failures: number;
  hint: number;
  random: () => number;
}

/** What a close code asks for: to end, for a `reason`, or to `wait` so many ms. `failures` start anew after 5 s up. */
export type Closed = (code: number, loss: Loss) => { reason?: string; failures?: number; wait?: number };

/** What the page asked for last, until the server's answer shows that it was heard. */
export interface Wish {
  type: "enter" | "accept" | "leave" | "complete";
  takeover?: boolean;
}

/** What the server should know of this page. */
export interface Wanted {
  page?: string;
  visible: boolean;
  watch?: boolean;
  wish?: Wish | null;
}

/** The messages that are missing between what is `wanted` and what a connection was `told`. */
export type Owed = (wanted: Wanted, told: Partial<Wanted>) => object[];

/** Whether `interview` answers `wish`; until then each new connection repeats it. */
export type Settled = (wish: Wish, interview: Partial<Interview>) => boolean;

/** What a token says of itself. Nothing here checks its signature. */
export type Claims = (token: string) => { sub: string; iat: number };

/** The kept token, if it is of the given one's session and not older; else the given one. */
export type Newest = (given: string | undefined, kept: string | null) => string | null | undefined;

/** How a WebSocket would have closed where an HTTP request was answered with this problem. */
export type Refused = (problem: { status: number; code: string; detail: string }) => { code: number; reason: string };

/** A page name as the server takes it: 200 characters, none for control, and no half of a pair. */
export type Clean = (page: unknown) => string | undefined;

/** `world`: what the client uses of its surroundings; tests pass their own. */
export type Connect = (options?: Options, world?: World) => Presence;

export type World = Pick<
  typeof globalThis,
  | "WebSocket" | "sessionStorage" | "document" | "navigator" | "fetch" | "Worker" | "Blob" | "URL"
  | "addEventListener" | "removeEventListener" | "setTimeout" | "clearTimeout"
> & { console: Pick<Console, "warn" | "error">; Date: { now(): number }; Math: { random(): number } };
