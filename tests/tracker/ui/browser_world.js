// The little of a browser that the components use; time passes at once, and what is timed is written down.
const listeners = new Set();
const styles = {};

export const world = { posted: [], triggered: [], timers: new Map(), hidden: false, styles };

function element() {
  const parts = {};
  const made = { hidden: true, dataset: {}, textContent: "", querySelector: (name) => (parts[name] ??= element()) };
  made.host = { dataset: {}, closest: () => ({ style: styles }) };
  return made;
}

export const root = element();

Object.defineProperty(globalThis, "document", {
  value: {
    get hidden() {
      return world.hidden;
    },
    querySelector: () => world.room ?? null,
    addEventListener: (name, listener) => (world.onVisibility = listener),
  },
});
Object.assign(globalThis, {
  location: { origin: "https://app.example" },
  frames: [{ postMessage: (message, origin) => world.posted.push([message.ask, origin]) }],
  addEventListener(name, listener, { signal }) {
    listeners.add(listener);
    signal.addEventListener("abort", () => listeners.delete(listener));
  },
  setTimeout(run, ms) {
    const timer = Symbol("timer");
    world.timers.set(timer, { run, ms });
    return timer;
  },
  clearTimeout: (timer) => world.timers.delete(timer),
});

export function say(message, origin = "https://app.example") {
  const data = { source: "presence", session: "s", ...message };
  for (const listener of [...listeners]) listener({ origin, data });
}

export function elapse() {
  const due = [...world.timers.values()];
  world.timers.clear();
  for (const { run } of due) run();
  return due.map(({ ms }) => ms);
}

export const listening = () => listeners.size;

export function call(component, data) {
  return component({ data, parentElement: root, setTriggerValue: (name, value) => world.triggered.push([name, value]) });
}
