// Runs in an invisible iframe of the app: keeps the participant connected, and tells the app's window what it hears.
const { client, url, session, token } = JSON.parse(document.getElementById("config").textContent);
const APP = self.origin; // a srcdoc document inherits it; its `location.origin` is "null"
const EVENTS = ["interview", "online", "fallback", "offline", "ended"];
const LONGEST_RETRY_MS = 30_000;
const last = new Map();
let at = 0;
let presence;

function tell(name, detail) {
  at = Math.max(at + 1, Date.now());
  const message = { source: "presence", session, at, name, detail };
  last.set(name === "interview" ? name : "connection", message);
  parent.postMessage(message, APP);
}

// A failed import is remembered for its address as long as this document lives: each attempt has its own.
async function load(attempt = 0) {
  try {
    return await import(attempt ? `${client}?attempt=${attempt}` : client);
  } catch {
    if (!attempt) tell("offline");
    const wait = Math.min(LONGEST_RETRY_MS, 1000 * 2 ** attempt) * (0.5 + Math.random() / 2);
    await new Promise((resolve) => setTimeout(resolve, wait));
    return load(attempt + 1);
  }
}

async function start() {
  const { connect } = await load();
  // Without a session: only the one that this tab had before a reload.
  presence = connect(token ? { url, token } : { url, revive: true });
  for (const name of EVENTS) presence.on(name, (detail) => tell(name, detail));
}

function answer({ ask }) {
  if (ask === "state") for (const message of last.values()) parent.postMessage(message, APP);
  if (ask === "resume") presence?.resume();
}

addEventListener("message", ({ origin, data }) => {
  if (origin === APP && data?.source === "presence-app") answer(data);
});

// Takes no room in the app: without this, Streamlit leaves a gap for it.
const cell = frameElement?.closest('[data-testid="stElementContainer"]');
if (cell) Object.assign(cell.style, { position: "absolute", pointerEvents: "none" });
start();
