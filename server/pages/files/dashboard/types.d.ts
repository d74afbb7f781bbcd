// What the server's API sends, as far as the dashboard looks at it.

export interface Interview {
  state: "none" | "waiting" | "offered" | "granted" | "denied";
  position?: number;
  ends_in_s?: number;
  offer_expires_in_s?: number;
}

export interface Session {
  session_id: string;
  user_id: string;
  pool: string;
  status: "active" | "completed" | "abandoned";
  language_code: string | null;
  current_page: string | null;
  started_at: string;
  last_seen: string;
  completed_at: string | null;
  is_in_interview: boolean;
  interview_started_at: string | null;
  interview_ended_at: string | null;
  waited_s: number | null;
  end_reason: string | null;
  version: number;
  online: boolean;
  connection: "ws" | "http" | null;
  visible: boolean | null;
  interview: Interview;
}

export interface Capacity {
  pool: string;
  mode: Mode;
  limit: number;
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

export type Mode = "open" | "paused" | "closed";

export interface Waiter {
  session_id: string;
  user_id: string;
  state: "waiting" | "offered";
  position: number;
  ready: boolean;
  since: string | null;
  eta_s: number | null;
  eta_max_s: number | null;
}

export interface Line {
  pool: string;
  waiting: number;
  offered: number;
  sessions: Waiter[];
}

export interface PoolEvent {
  type: string;
  seq: number;
  epoch: string;
  at: string;
  session_id?: string;
  user_id?: string;
  fence?: number;
  cause?: string;
  actor?: string;
}

export interface Readiness {
  ready: boolean;
  redis: "ok" | "down";
  postgres: "ok" | "down" | "off";
  recovering: boolean;
  draining: boolean;
  backlog: number | null;
}

/** `at`: ISO 8601. */
export interface Sample {
  at: string;
  online: number;
  in_interview: number;
  waiting: number;
  limit: number | null;
}

export interface Recent {
  pool: string;
  source: "postgres" | "memory";
  step_s: number;
  points: Sample[];
}

/** One message of the stream; `id` is null for what has none. */
export interface Message {
  id: string | null;
  event: string;
  data: string;
}

export type StreamState = "connecting" | "live" | "reconnecting" | "refused";
export type State = "granted" | "offered" | "waiting" | "here" | "away" | "completed" | "abandoned";
