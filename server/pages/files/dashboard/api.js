// Calls of the API with the cookie of the sign-in. What fails is a Problem, with the server's sentence.

const SIGN_IN = "/dashboard";
const LED = "presence-dashboard-led";
export const CSRF = { "X-Presence-CSRF": "1" };

/** What the server answered instead of doing it; status 0 when it did not answer at all. */
export class Problem extends Error {
  /** @param {number} status @param {string} sentence @param {number} [retryAfterS] */
  constructor(status, sentence, retryAfterS) {
    super(sentence);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

/**
 * @param {string} method @param {string} path
 * @param {{ params?: Record<string, string | number>, body?: object, signal?: AbortSignal }} [options]
 */
export async function call(method, path, { params, body, signal } = {}) {
  const query = params ? `?${new URLSearchParams(Object.entries(params).map(([name, value]) => [name, String(value)]))}` : "";
  /** @type {Record<string, string>} */
  const headers = body ? { ...CSRF, "Content-Type": "application/json" } : CSRF;
  const response = await reach(path + query, { method, headers, body: body && JSON.stringify(body), signal });
  if (!response.ok) throw await problemOf(response);
  isIn();
  return response.json();
}

/** `fetch`, with a Problem when nobody answers. @param {string} url @param {RequestInit} options */
export async function reach(url, options) {
  try {
    return await fetch(url, { ...options, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem(0, "The server does not answer. Check the connection, then try again.");
  }
}

/** What a failed response says. Who is no longer signed in is led to the form. @param {Response} response */
export async function problemOf(response) {
  const said = await response.json().catch(() => null);
  if (response.status === 401) leadToSignIn();
  const sentence = said?.detail ?? `The server answered ${response.status} ${response.statusText}.`;
  return new Problem(response.status, sentence, Number(response.headers.get("Retry-After")) || undefined);
}

/** Once: a page that the server lets in while it refuses its calls would only be sent round in circles. */
function leadToSignIn() {
  if (sessionStorage.getItem(LED)) return;
  sessionStorage.setItem(LED, "1");
  location.assign(SIGN_IN);
}

/** The calls are answered: the next refusal may lead to the form again. */
function isIn() {
  sessionStorage.removeItem(LED);
}
